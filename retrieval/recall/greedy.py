"""ComiRec's controllable greedy (Cen et al., KDD 2020, section 3.4) in closed form.

It maximises sum f(i) + lambda * sum over pairs [cat(i) != cat(j)]. Adding item i to a list S is worth
f(i) + lambda * |S| - lambda * (items of i's category in S). The second term is the same for every item, and inside a
category the better item always comes first, so the r-th item of a category (from 0) always enters with the value
f - lambda * r: the greedy picks exactly the n largest of these values, and they are the optimum over unordered pairs.
The categories are sorted lists already, so their heads are merged through a heap: O(P + n log C) a user for P
candidates in C categories, instead of O(n P).

Differs from the paper: an item without a category is a category of its own, equal values go to the item that stands
first in the pool, and lambda may count standard deviations of the user's own pool.
"""

import math

import numpy as np
from jaxtyping import Int32
from numba import njit

from retrieval.core.errors import UsageError
from retrieval.index.pools import Pools
from retrieval.index.threads import over_chunks
from retrieval.recall.list_kernels import Array, PoolArrays, pick, pool_size, price_of, sink
from retrieval.recall.pools import Lists


def category_greedy(
    pools: Pools, categories: Int32[np.ndarray, "n"], n: int, lambda_: float, *, scale_free: bool, threads: int = 0
) -> Lists:
    """The n items of each pool that the greedy picks, in the order it picks them; scores stay those of the pool.

    categories: int32[N], -1 for none. lambda_: at least 0, on the scores' scale, or in standard deviations of the user's
    pool when scale_free (a pool of equal scores counts as having a deviation of 1).

    Raises:
        UsageError: lambda_ is negative or not finite: the merge is the greedy from 0 on only.
    """
    if not 0 <= lambda_ < math.inf:
        raise UsageError(f"lambda = {lambda_}", where="category_greedy", expected="0 or more")
    users = len(pools.rows)
    lists = Lists.empty(users, n)
    codes = int(categories.max(initial=-1)) + 1
    source, target = (pools.rows, pools.scores, pools.interest), (lists.rows, lists.scores, lists.interest)
    over_chunks(_greedy_users, users, threads, source, categories, codes, (float(lambda_), scale_free), target)
    return lists


@njit(cache=True, nogil=True)
def _greedy_users(
    start: int,
    stop: int,
    source: PoolArrays,
    categories: Array,
    codes: int,
    setting: tuple[float, bool],
    target: PoolArrays,
) -> None:
    rows, scores, _ = source
    size, n = rows.shape[1], target[0].shape[1]
    last, following = np.full(codes, -1, np.int64), np.empty(size, np.int64)
    values, places, ranks = np.empty(size, np.float64), np.empty(size, np.int64), np.empty(size, np.int64)
    for user in range(start, stop):
        heads = _link_categories(rows[user], categories, last, following, places)
        filled = pool_size(rows[user])
        price = price_of(setting, scores[user], filled)
        for head in range(heads):
            values[head], ranks[head] = scores[user, places[head]], 0
        for position in range(min(n, filled)):
            place = places[0]
            pick(source, target, user, place, position)
            heads = _advance(values, places, ranks, heads, scores[user], following, price)


@njit(cache=True, nogil=True)
def _link_categories(rows: Array, categories: Array, last: Array, following: Array, places: Array) -> int:
    """Chain the candidates of each category in pool order: `places` gets the first of each, `following` the next ones.

    The heads come in pool order, best first, which makes them a heap already. `last` is all -1 before and after.
    """
    heads, filled = 0, pool_size(rows)
    for place in range(filled):
        code = categories[rows[place]]
        following[place] = -1
        if code < 0 or last[code] < 0:
            places[heads] = place
            heads += 1
        else:
            following[last[code]] = place
        if code >= 0:
            last[code] = place
    for place in range(filled):
        code = categories[rows[place]]
        if code >= 0:
            last[code] = -1
    return heads


@njit(cache=True, nogil=True)
def _advance(values: Array, places: Array, ranks: Array, heads: int, scores: Array, following: Array, price: float) -> int:
    """Put the next item of the best head's category, or the last head, in its place; the number of heads left."""
    place, rank = following[places[0]], ranks[0] + 1
    if place >= 0:
        sink(values, places, ranks, heads, scores[place] - price * rank, place, rank)
        return heads
    heads -= 1
    sink(values, places, ranks, heads, values[heads], places[heads], ranks[heads])
    return heads
