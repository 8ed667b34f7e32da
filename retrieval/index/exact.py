"""Exact inner-product search: the oracle that every other index is measured against."""

from pathlib import Path

import numpy as np
from jaxtyping import Float32

from retrieval.index.abstract import AbstractIndex, Hits, as_vectors
from retrieval.index.kernels import drain_all, scan
from retrieval.index.settings import IndexSettings
from retrieval.index.threads import over_chunks

_QUERY_BLOCK = 256
# Empty places of a heap: larger than any row, so that equal scores prefer real items.
_NO_ROW = np.iinfo(np.int64).max


class ExactIndex(AbstractIndex):
    """Blocked matrix products in float32, each scanned into one heap a query; ordered by (-score, row).

    A block of scores takes at most `settings.block_mb` MiB, whatever the number of items and queries.
    """

    def __init__(self, vectors: Float32[np.ndarray, "n d"], settings: IndexSettings) -> None:
        self.vectors = as_vectors(vectors, "item vectors")
        super().__init__(settings, *self.vectors.shape)

    @property
    def is_exact(self) -> bool:
        return True

    def _search(self, queries: Float32[np.ndarray, "q d"], n: int) -> Hits:
        scores = np.full((len(queries), n), -np.inf, dtype=np.float32)
        rows = np.full((len(queries), n), _NO_ROW, dtype=np.int64)
        for start in range(0, len(queries), _QUERY_BLOCK):
            part = slice(start, start + _QUERY_BLOCK)
            self._search_block(queries[part], scores[part], rows[part])
        return Hits(rows, scores)

    def _search_block(self, queries: Float32[np.ndarray, "q d"], scores: np.ndarray, rows: np.ndarray) -> None:
        step = max(1, (self.settings.block_mb << 18) // len(queries))
        for first in range(0, self.count, step):
            block = queries @ self.vectors[first : first + step].T
            over_chunks(scan, len(queries), self.settings.threads, block, first, scores, rows)
        over_chunks(drain_all, len(queries), self.settings.threads, scores, rows)

    def write(self, path: Path) -> None:
        """Write the vectors in numpy's format; FAISS is not needed to read them."""
        with path.open("wb") as stream:
            np.save(stream, self.vectors, allow_pickle=False)
