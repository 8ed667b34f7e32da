"""Items that go with items, counted from the log: first-order Markov and item-kNN, the strong baselines without vectors."""
