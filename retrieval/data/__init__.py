"""Logs to datasets: reading, contracts, filters, sequences, splits. Numpy and polars only."""
