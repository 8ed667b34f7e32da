"""FAISS behind the search contract: one factory, inner product throughout, and the only place that knows about GPUs."""
