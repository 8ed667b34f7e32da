"""Fields: typed columns of items, users and events, and the numbers that encoders read in their place."""
