"""ComiRec's controllable greedy (Cen et al., KDD 2020, section 3.4) in closed form.

It maximises sum f(i) + lambda * sum over pairs [cat(i) != cat(j)]. Adding item i to a list S is worth
f(i) + lambda * |S| - lambda * (items of i's category in S). The second term is the same for every item, and inside a
category the better item always comes first, so the greedy picks exactly the n largest f(i) - lambda * (rank of i inside
its category): a segment rank and a sort, O(P log P) instead of O(n P), and the optimum over unordered pairs.
An item without a category is a category of its own.
"""

import numpy as np
from jaxtyping import Int32
from numba import njit

from retrieval.index.threads import over_chunks
from retrieval.recall.kernels import sort_pool
from retrieval.recall.pools import Lists, Pools

Array = np.ndarray


def category_greedy(
    pools: Pools, categories: Int32[np.ndarray, "n"], n: int, lambda_: float, *, scale_free: bool, threads: int = 0
) -> Lists:
    """The n items of each pool that the greedy picks, in the order it picks them; scores stay those of the pool.

    categories: int32[N], -1 for none. lambda_: on the scores' scale, or in standard deviations of the user's pool when
    scale_free. Equal values go to the item that stands first in the pool.
    """
    users = len(pools.rows)
    lists = Lists(np.full((users, n), -1, np.int64), np.full((users, n), -np.inf, np.float32), np.full((users, n), -1, np.int32))
    codes = int(categories.max(initial=-1)) + 1
    source, target = (pools.rows, pools.scores, pools.interest), (lists.rows, lists.scores, lists.interest)
    over_chunks(_greedy_users, users, threads, source, categories, codes, (float(lambda_), scale_free), target)
    return lists


@njit(cache=True, nogil=True)
def _greedy_users(
    start: int,
    stop: int,
    source: tuple[Array, Array, Array],
    categories: Array,
    codes: int,
    setting: tuple[float, bool],
    target: tuple[Array, Array, Array],
) -> None:
    rows, scores, interest = source
    size, n = rows.shape[1], target[0].shape[1]
    taken = np.zeros(codes + 1, np.int64)
    values, order, spare = np.empty(size, np.float64), np.empty(size, np.int64), np.empty(size, np.int64)
    for user in range(start, stop):
        filled = 0
        while filled < size and rows[user, filled] >= 0:
            filled += 1
        mean, scale = _standard(scores[user], filled, setting[1])
        for i in range(filled):
            code = categories[rows[user, i]]
            rank = taken[code] if code >= 0 else 0
            taken[code if code >= 0 else codes] += 1
            values[i], order[i] = (np.float64(scores[user, i]) - mean) / scale - setting[0] * rank, i
        for i in range(filled):
            code = categories[rows[user, i]]
            taken[code if code >= 0 else codes] = 0
        sort_pool(order, values, spare, filled)
        for i in range(min(n, filled)):
            place = order[i]
            target[0][user, i], target[1][user, i], target[2][user, i] = rows[user, place], scores[user, place], interest[user, place]


@njit(cache=True, nogil=True)
def _standard(scores: Array, filled: int, scale_free: bool) -> tuple[float, float]:
    """Mean and standard deviation of a pool; (0, 1) where scores keep their scale or do not differ."""
    if not scale_free or filled == 0:
        return 0.0, 1.0
    mean = 0.0
    for i in range(filled):
        mean += np.float64(scores[i]) / filled
    variance = 0.0
    for i in range(filled):
        variance += (np.float64(scores[i]) - mean) ** 2 / filled
    return (mean, np.sqrt(variance)) if variance > 0 else (0.0, 1.0)
