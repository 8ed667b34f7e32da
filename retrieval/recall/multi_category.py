"""ComiRec's controllable greedy (Cen et al., KDD 2020, section 3.4) for items of several categories.

It maximises sum f(i) + lambda * sum over pairs [i and j share no category]: the next item is the one with the largest
f(i) - lambda * (chosen items that share a category with i), because the pairs that do not share one number the chosen
items less those that do. With one category an item this is the greedy of `category_greedy`, value by value; with several
the closed form is lost, because an item stands in several queues at once.

Sharing is yes or no, and not a degree such as 1 - Jaccard: it is the paper's indicator word for word, counts stay whole,
and a film of three genres does not come out as nearly different from one of a single genre that it has.

Differs from the paper: an item without a category shares none, equal values go to the item that stands first in the pool,
and lambda may count standard deviations of the user's own pool. Only the candidates that share a category with the item
just chosen are touched; scores bound values, so that a scan ends at the first score that is not above the best value.
"""

import numpy as np
from numba import njit

from retrieval.index.pools import Pools
from retrieval.recall.context import Labels, ListContext, needed
from retrieval.recall.list_kernels import Array, PoolArrays, fill_lists, first_left, pick, pool_size, price_of
from retrieval.recall.pools import Lists
from retrieval.recall.settings import RecallSettings


def multi_category_greedy(pools: Pools, context: ListContext, settings: RecallSettings) -> Lists:
    """The n items of each pool that the greedy picks, in the order it picks them; scores stay those of the pool."""
    labels: Labels = needed(context.labels, "labels")
    most = int(np.diff(labels.offsets).max(initial=0))
    return fill_lists(_greedy_users, pools, settings, labels.offsets, labels.codes, labels.count, most)


@njit(cache=True, nogil=True)
def _greedy_users(
    start: int,
    stop: int,
    source: PoolArrays,
    setting: tuple[float, bool],
    target: PoolArrays,
    offsets: Array,
    codes: Array,
    count: int,
    most: int,
) -> None:
    rows, scores, _ = source
    size, n = rows.shape[1], target[0].shape[1]
    first, following, owner = np.full(count, -1, np.int64), np.empty(size * most, np.int64), np.empty(size * most, np.int64)
    left, sharing, met = np.empty(size, np.float64), np.empty(size, np.int64), np.empty(size, np.int64)
    for user in range(start, stop):
        filled = pool_size(rows[user])
        price = price_of(setting, scores[user], filled)
        left[:filled], sharing[:filled], met[:filled] = scores[user, :filled], 0, -1
        _link(rows[user], filled, offsets, codes, first, following, owner)
        for position in range(min(n, filled)):
            place = _best(scores[user], left, sharing, price, filled)
            place = first_left(left) if place < 0 else place
            left[place] = np.nan
            pick(source, target, user, place, position)
            for code in codes[offsets[rows[user, place]] : offsets[rows[user, place] + 1]]:
                _count_sharing(first[code], following, owner, position, met, sharing)
        for row in rows[user, :filled]:
            for code in codes[offsets[row] : offsets[row + 1]]:
                first[code] = -1


@njit(cache=True, nogil=True)
def _link(rows: Array, filled: int, offsets: Array, codes: Array, first: Array, following: Array, owner: Array) -> None:
    """Chain the candidates of each category; `first` is all -1 before."""
    slot = 0
    for place in range(filled):
        for code in codes[offsets[rows[place]] : offsets[rows[place] + 1]]:
            following[slot], owner[slot], first[code] = first[code], place, slot
            slot += 1


@njit(cache=True, nogil=True)
def _count_sharing(slot: int, following: Array, owner: Array, position: int, met: Array, sharing: Array) -> None:
    """One more chosen item for everyone in a category's chain; `met` keeps those who share two categories from counting twice."""
    while slot >= 0:
        place = owner[slot]
        if met[place] != position:
            met[place] = position
            sharing[place] += 1
        slot = following[slot]


@njit(cache=True, nogil=True)
def _best(scores: Array, left: Array, sharing: Array, price: float, filled: int) -> int:
    best, place = -np.inf, -1
    for i in range(filled):
        if scores[i] <= best:
            break
        value = left[i] - price * sharing[i]
        if value > best:
            best, place = value, i
    return place
