"""List builders by name: from pools to lists, all by one signature."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from retrieval.core.errors import UsageError
from retrieval.core.tables import Table
from retrieval.index.pools import Pools
from retrieval.recall.calibration import calibration
from retrieval.recall.context import ListContext, Need
from retrieval.recall.dpp import dpp
from retrieval.recall.greedy import category_greedy
from retrieval.recall.mmr import mmr
from retrieval.recall.multi_category import multi_category_greedy
from retrieval.recall.pools import Lists
from retrieval.recall.quota import quota
from retrieval.recall.settings import RecallSettings
from retrieval.recall.ssd import ssd
from retrieval.recall.xquad import xquad


@dataclass(frozen=True)
class ListBuilder:
    """A builder, and the parts of a context that it cannot do without."""

    build: Callable[[Pools, ListContext, RecallSettings], Lists]
    needs: frozenset[Need] = frozenset()


def _greedy(pools: Pools, context: ListContext, settings: RecallSettings) -> Lists:
    return category_greedy(
        pools, context.categories, settings.n, settings.lambda_, scale_free=settings.scale_free, threads=settings.threads
    )


def _top(pools: Pools, context: ListContext, settings: RecallSettings) -> Lists:
    del context
    lists, width = Lists.empty(len(pools.rows), settings.n), min(settings.n, pools.rows.shape[1])
    for target, source in ((lists.rows, pools.rows), (lists.scores, pools.scores), (lists.interest, pools.interest)):
        target[:, :width] = source[:, :width]
    return lists


LIST_BUILDERS: Table[ListBuilder] = Table(
    "list builder",
    {
        "category_greedy": ListBuilder(_greedy),
        "multi_category_greedy": ListBuilder(multi_category_greedy, frozenset({"labels"})),
        "mmr": ListBuilder(mmr, frozenset({"vectors"})),
        "dpp": ListBuilder(dpp, frozenset({"vectors"})),
        "ssd": ListBuilder(ssd, frozenset({"vectors"})),
        "calibration": ListBuilder(calibration, frozenset({"labels", "histories"})),
        "xquad": ListBuilder(xquad, frozenset({"vectors", "interests"})),
        "quota": ListBuilder(quota),
        "top": ListBuilder(_top),
    },
)


def needs_of(builders: Iterable[str]) -> frozenset[Need]:
    """What some builders need together. Raises UsageError when there is no such builder."""
    return frozenset[Need]().union(*(LIST_BUILDERS[name].needs for name in builders))


def build_lists(pools: Pools, context: ListContext, settings: RecallSettings) -> Lists:
    """The list of every pool, by the builder that the settings name.

    Every builder gives each user min(n, size of the pool) distinct candidates of the pool, a permutation of it where n
    is not smaller, whatever the threads and the other users of the batch; at lambda 0 they are the first n of the pool.

    Raises:
        UsageError: there is no such builder, or the context lacks what it needs or is of other users.
    """
    _check_users(len(pools.rows), context)
    return LIST_BUILDERS[settings.diversity].build(pools, context, settings)


def _check_users(users: int, context: ListContext) -> None:
    histories, interests = context.histories, context.interests
    numbers = [users if histories is None else len(histories.offsets) - 1, users if interests is None else len(interests.vectors)]
    if set(numbers) != {users}:
        raise UsageError(f"{users} pools, {numbers[0]} histories and interests of {numbers[1]} users", where="build_lists")


def lists_over_lambdas(
    pools: Pools, context: ListContext, settings: RecallSettings, lambdas: Iterable[float]
) -> Iterator[tuple[float, Lists]]:
    """The lists of the same pools for several lambdas, by the settings' builder: the frontier costs one search."""
    for value in lambdas:
        yield value, build_lists(pools, context, settings.model_copy(update={"lambda_": value}))


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
