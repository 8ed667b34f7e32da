"""The search contract that every index keeps."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from retrieval.core.errors import IntegrityError, UsageError
from retrieval.index.settings import IndexSettings

_CHECKED_ROWS = 1 << 16


@dataclass(frozen=True)
class Hits:
    """The best items of each query, best first.

    rows: int64[Q, n], item rows, -1 where there are no more items.
    scores: float32[Q, n], inner products as the index computes them, -inf where rows is -1.
    """

    rows: Int64[np.ndarray, "q n"]
    scores: Float32[np.ndarray, "q n"]


class AbstractIndex(ABC):
    """Items by inner product. Rows are positions in the vectors the index was built from."""

    def __init__(self, settings: IndexSettings, count: int, dimension: int) -> None:
        self.settings, self.count, self.dimension = settings, count, dimension

    @property
    @abstractmethod
    def is_exact(self) -> bool:
        """Whether no item that is left out of the hits scores above the last hit, rounding apart."""

    @property
    def device(self) -> str:
        """`cpu` or `gpu`."""
        return "cpu"

    def search(self, queries: Float32[np.ndarray, "q d"], n: int) -> Hits:
        """The n items of largest inner product for each query; rows are -1 past the last item.

        Raises:
            UsageError: the dimension differs from the index's, or n is less than 1.
            IntegrityError: a query is not finite.
        """
        queries = as_vectors(queries, "queries")
        if queries.shape[1] != self.dimension:
            raise UsageError(f"queries have {queries.shape[1]} dimensions", where="index", expected=str(self.dimension))
        if n < 1:
            raise UsageError(f"n = {n}", where="index", expected="at least 1")
        return _padded(self._search(queries, min(n, self.count)), n)

    def without(self, blocked: Bool[np.ndarray, "n"]) -> "AbstractIndex":  # noqa: ARG002 (most kinds cannot)
        """The same index answering only rows that are not blocked, where that costs next to nothing; else itself."""
        return self

    @abstractmethod
    def _search(self, queries: Float32[np.ndarray, "q d"], n: int) -> Hits:
        """Search checked queries for n <= count items."""

    @abstractmethod
    def write(self, path: Path) -> None:
        """Write the index to one file that `read_index` understands."""


def as_vectors(values: Float32[np.ndarray, "n d"], what: str) -> Float32[np.ndarray, "n d"]:
    """The values as a contiguous finite float32 matrix.

    Raises:
        UsageError: they are no matrix. IntegrityError: one is NaN or infinite.
    """
    if values.ndim != 2:
        raise UsageError(f"{what} have shape {values.shape}", expected="two dimensions")
    matrix = np.ascontiguousarray(values, dtype=np.float32)
    row = _first_bad_row(matrix)
    if row is not None:
        raise IntegrityError(f"{what}: row {row} is not finite", expected="finite numbers", remedy="train the model again: it has diverged")
    return matrix


def _first_bad_row(matrix: Float32[np.ndarray, "n d"]) -> int | None:
    # Block by block: a mask of the whole would take a quarter of the memory of the vectors.
    for first in range(0, len(matrix), _CHECKED_ROWS):
        finite = np.isfinite(matrix[first : first + _CHECKED_ROWS]).all(axis=1)
        if not finite.all():
            return first + int(np.argmin(finite))
    return None


def require_finite_scores(largest_norm: float, vectors: Float64[np.ndarray, "q d"] | Float32[np.ndarray, "q d"], what: str) -> None:
    """Raise IntegrityError when an inner product with an item may be too large for float32."""
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if largest_norm * norms.max(initial=0.0) > np.finfo(np.float32).max:
        raise IntegrityError(f"scores of {what} overflow", where="index", remedy="train the model again: it has diverged")


def _padded(hits: Hits, n: int) -> Hits:
    missing = ((0, 0), (0, n - hits.rows.shape[1]))
    if missing[1][1] == 0:
        return hits
    rows = np.pad(hits.rows, missing, constant_values=-1)
    return Hits(rows, np.pad(hits.scores, missing, constant_values=-np.inf))
