"""Scores of recalled candidates that look at the candidate while they read the history: DIN and DIEN."""
