"""How much of the exact result an index finds."""

import numpy as np
from jaxtyping import Float32

from retrieval.core.errors import UsageError
from retrieval.index.abstract import AbstractIndex
from retrieval.index.exact.index import ExactIndex

_ROUNDING = 1e-5


def measure_recall(index: AbstractIndex, exact: ExactIndex, queries: Float32[np.ndarray, "q d"], n: int) -> float:
    """The mean share of the n best items that the index finds, 0 to 1.

    A hit is an item whose inner product reaches the exact n-th one (to 1e-5 of the largest): items of equal score
    are as good as each other, so an exact index reaches 1 on any data.

    Raises:
        UsageError: there is no query.
    """
    if len(queries) == 0:
        raise UsageError("no queries to measure the index by", where="index", expected="at least one")
    n = min(n, exact.count, index.max_results)
    wanted = exact.search(queries, n).scores
    found = index.search(queries, n).rows
    scores = np.einsum("qnd,qd->qn", exact.vectors[found], queries)
    tolerance = _ROUNDING * np.abs(wanted).max(axis=1, keepdims=True)
    return float(((scores >= wanted[:, -1:] - tolerance) & (found >= 0)).mean())
