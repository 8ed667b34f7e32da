"""Training of re-scorers on recalled candidates, in the loop that all models are trained in."""
