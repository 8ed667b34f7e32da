"""Accuracy of ranked lists, one value a user a cut-off.

Every function takes `hits` bool[B, C] (is the item at rank 1..C a target?), `targets` int64[B] (number of targets,
at least 1) and `cutoffs` (each at most C), and returns float64[B, len(cutoffs)]. A list shorter than the cut-off
counts as if the rest of it missed. Nothing is sampled: ranks are ranks among all items.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from retrieval.core.tables import Table
from retrieval.evaluation.settings import ACCURACY_METRICS

Hits = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
Metric = Callable[[Hits, Counts, Sequence[int]], Values]


def recall(hits: Hits, targets: Counts, cutoffs: Sequence[int]) -> Values:
    """Share of the user's targets among the first n."""
    return _hits_within(hits, cutoffs) / targets[:, None]


def hr(hits: Hits, targets: Counts, cutoffs: Sequence[int]) -> Values:  # noqa: ARG001 - one signature for every metric
    """Hit rate: 1 when any target is among the first n."""
    return (_hits_within(hits, cutoffs) > 0).astype(np.float64)


def precision(hits: Hits, targets: Counts, cutoffs: Sequence[int]) -> Values:  # noqa: ARG001
    """Targets among the first n, over n (also for shorter lists)."""
    return _hits_within(hits, cutoffs) / np.asarray(cutoffs, np.float64)


def ndcg(hits: Hits, targets: Counts, cutoffs: Sequence[int]) -> Values:
    """Discounted gain over that of min(n, targets) hits at the top (Järvelin and Kekäläinen 2002, binary gain)."""
    ideal = np.minimum(targets[:, None], np.asarray(cutoffs))
    return _gain(hits, cutoffs) / _ideal_gain(ideal)


def ndcg_comirec(hits: Hits, targets: Counts, cutoffs: Sequence[int]) -> Values:  # noqa: ARG001
    """The official ComiRec NDCG, for parity only: the ideal has as many hits as the list itself.

    It rewards the order of the hits and not their number: one hit at rank 1 scores 1 whatever was missed.
    """
    found = _hits_within(hits, cutoffs).astype(np.int64)
    return np.where(found > 0, _gain(hits, cutoffs) / _ideal_gain(np.maximum(found, 1)), 0.0)


def mrr(hits: Hits, targets: Counts, cutoffs: Sequence[int]) -> Values:  # noqa: ARG001
    """1 / rank of the first target among the first n, else 0."""
    first = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, hits.shape[1] + 1)[:, None]
    return np.where(first <= np.asarray(cutoffs), 1.0 / first, 0.0)


def average_precision(hits: Hits, targets: Counts, cutoffs: Sequence[int]) -> Values:
    """MAP@n: precision at the rank of every hit among the first n, summed, over min(n, targets)."""
    at_rank = hits.cumsum(axis=1) / np.arange(1, hits.shape[1] + 1) * hits
    found: Values = at_rank @ _within(hits.shape[1], cutoffs) / np.minimum(targets[:, None], np.asarray(cutoffs))
    return found


METRICS: Table[Metric] = Table(
    "metric", dict(zip(ACCURACY_METRICS, (recall, hr, precision, ndcg, ndcg_comirec, mrr, average_precision), strict=True))
)


def _within(depth: int, cutoffs: Sequence[int]) -> Values:
    """float64[depth, len(cutoffs)]: 1 where the rank is within the cut-off."""
    return (np.arange(depth)[:, None] < np.asarray(cutoffs)).astype(np.float64)


def _hits_within(hits: Hits, cutoffs: Sequence[int]) -> Values:
    return hits.astype(np.float64) @ _within(hits.shape[1], cutoffs)


def _discounts(depth: int) -> Values:
    return 1.0 / np.log2(np.arange(2, depth + 2))


def _gain(hits: Hits, cutoffs: Sequence[int]) -> Values:
    return hits.astype(np.float64) @ (_within(hits.shape[1], cutoffs) * _discounts(hits.shape[1])[:, None])


def _ideal_gain(hits: npt.NDArray[np.int64]) -> Values:
    """Gain of that many (at least 1) hits at the top of the list."""
    table = np.cumsum(_discounts(int(hits.max(initial=1))))
    return np.asarray(table[hits - 1])
