"""Losses: scores in, scalar out; they never see a model."""
