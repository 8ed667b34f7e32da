"""List builders by name: from pools to lists."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from jaxtyping import Float32, Int32

from retrieval.core.tables import Table
from retrieval.index.pools import Pools
from retrieval.recall.greedy import category_greedy
from retrieval.recall.pools import Lists
from retrieval.recall.settings import RecallSettings

ListBuilder = Callable[[Pools, Int32[np.ndarray, "n"], RecallSettings], Lists]


def _greedy(pools: Pools, categories: Int32[np.ndarray, "n"], settings: RecallSettings) -> Lists:
    return category_greedy(pools, categories, settings.n, settings.lambda_, scale_free=settings.scale_free, threads=settings.threads)


def _top(pools: Pools, categories: Int32[np.ndarray, "n"], settings: RecallSettings) -> Lists:
    del categories
    lists, width = Lists.empty(len(pools.rows), settings.n), min(settings.n, pools.rows.shape[1])
    for target, source in ((lists.rows, pools.rows), (lists.scores, pools.scores), (lists.interest, pools.interest)):
        target[:, :width] = source[:, :width]
    return lists


LIST_BUILDERS: Table[ListBuilder] = Table("list builder", {"category_greedy": _greedy, "top": _top})


def build_lists(pools: Pools, categories: Int32[np.ndarray, "n"], settings: RecallSettings) -> Lists:
    """The list of every pool, by the builder that the settings name.

    Raises:
        UsageError: there is no such builder.
    """
    return LIST_BUILDERS[settings.diversity](pools, categories, settings)


def lists_over_lambdas(
    pools: Pools, categories: Int32[np.ndarray, "n"], settings: RecallSettings, lambdas: Iterable[float]
) -> Iterator[tuple[float, Lists]]:
    """The lists of the same pools for several lambdas: the frontier costs one search."""
    for value in lambdas:
        yield value, build_lists(pools, categories, settings.model_copy(update={"lambda_": value, "diversity": "category_greedy"}))


def mean_overlap(tops: list[Pools]) -> Float32[np.ndarray, "b"]:
    """Mean pairwise Jaccard overlap of the lists of single interests, float32[B]; NaN for a user with fewer than two.

    tops: one Pools an interest, with an empty row where the user does not have the interest.
    """
    total, pairs = np.zeros(len(tops[0].rows)), np.zeros(len(tops[0].rows), dtype=np.int64)
    ordered = [np.sort(top.rows, axis=1) for top in tops]
    for first in range(len(ordered)):
        for second in range(first):
            shared, either = _shared(ordered[first], ordered[second])
            both = (ordered[first][:, -1] >= 0) & (ordered[second][:, -1] >= 0)
            total += np.where(both, shared / np.maximum(either, 1), 0.0)
            pairs += both
    mean: np.ndarray = np.divide(total, pairs, out=np.full(len(total), np.nan), where=pairs > 0)
    return mean.astype(np.float32)


def _shared(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    merged = np.sort(np.concatenate([left, right], axis=1), axis=1)
    shared = ((merged[:, 1:] == merged[:, :-1]) & (merged[:, 1:] >= 0)).sum(axis=1)
    return shared, (merged >= 0).sum(axis=1) - shared
