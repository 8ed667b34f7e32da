"""Negative samplers: rows together with the log of their true probability."""
