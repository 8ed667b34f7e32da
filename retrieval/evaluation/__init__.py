"""Metrics, intervals, comparisons: scores anybody's parquet, without torch or FAISS."""
