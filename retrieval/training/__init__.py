"""Batches as a function of (seed, step), the training loop, checkpoints."""
