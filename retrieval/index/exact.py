"""Exact inner-product search: the oracle that every other index is measured against."""

from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from retrieval.core.arrays import save_array
from retrieval.index.abstract import AbstractIndex, Hits, as_vectors
from retrieval.index.kernels import drain_all, scan
from retrieval.index.settings import IndexSettings
from retrieval.index.threads import over_chunks

_QUERY_BLOCK = 64
# Empty places of a heap: larger than any row, so that equal scores prefer real items.
_NO_ROW = np.iinfo(np.int64).max


class ExactIndex(AbstractIndex):
    """Blocked matrix products in float32, each scanned into one heap a query; ordered by (-score, row).

    A block of scores takes at most `settings.block_mb` MiB a thread, whatever the number of items and queries.
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
        # Our threads share out the queries; BLAS's own would wait for each other after every block.
        with _blas().limit(limits=1, user_api="blas"):
            over_chunks(self._search_part, len(queries), self.settings.threads, queries, scores, rows)
        return Hits(rows, scores)

    def _search_part(self, start: int, stop: int, queries: Float32[np.ndarray, "q d"], scores: np.ndarray, rows: np.ndarray) -> None:
        for first in range(start, stop, _QUERY_BLOCK):
            part = slice(first, min(first + _QUERY_BLOCK, stop))
            self._search_block(queries[part], scores[part], rows[part])

    def _search_block(self, queries: Float32[np.ndarray, "q d"], scores: np.ndarray, rows: np.ndarray) -> None:
        step = (self.settings.block_mb << 18) // _QUERY_BLOCK
        for first in range(0, self.count, step):
            scan(0, len(queries), queries @ self.vectors[first : first + step].T, first, scores, rows)
        drain_all(0, len(queries), scores, rows)

    def write(self, path: Path) -> None:
        """Write the vectors in numpy's format; FAISS is not needed to read them."""
        save_array(path, self.vectors)


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()
