"""Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998, section 2): relevance less the nearest chosen item.

The next item of a list S is the one with the largest f(i) - lambda * max over j in S of cos(i, j), which orders
candidates as the paper's L f(i) - (1 - L) max cos does at L = 1 / (1 + lambda); the first is the one with the best score.
Each candidate keeps its largest cosine so far, so that a step costs one inner product a candidate: O(n P D) a user.

Differs from the paper: the similarity is the cosine of item vectors, float32 with a sum in order of dimensions, and 0 to
an item whose vector is zero; lambda may count standard deviations of the user's own pool. Equal values go to the item
that stands first in the pool. A cosine is at least -1: candidates that score more than lambda below the best value are not
looked at, which changes no list.
"""

import numpy as np
from numba import njit

from retrieval.index.pools import Pools
from retrieval.recall.context import ListContext, needed
from retrieval.recall.list_kernels import (
    Array,
    PoolArrays,
    fetch_ahead,
    fill_lists,
    first_left,
    gather,
    largest,
    pick,
    pool_size,
    price_of,
    products,
    scaled,
    widened,
)
from retrieval.recall.pools import Lists
from retrieval.recall.settings import RecallSettings

# Cosines are rounded: a pair may lie past the ends of [-1, 1] by a few float32 units.
_LARGEST_COSINE = 1.0 + 1e-4


def mmr(pools: Pools, context: ListContext, settings: RecallSettings) -> Lists:
    """The n items of each pool by maximal marginal relevance, in the order they are picked; scores stay those of the pool."""
    return fill_lists(_mmr_users, pools, settings, np.asarray(needed(context.vectors, "vectors")))


@njit(cache=True, nogil=True)
def _mmr_users(start: int, stop: int, source: PoolArrays, setting: tuple[float, bool], target: PoolArrays, vectors: Array) -> None:
    rows, scores, _ = source
    size, n = rows.shape[1], target[0].shape[1]
    block, chosen = np.empty((vectors.shape[1], size), np.float32), np.empty((n, vectors.shape[1]), np.float32)
    scale, cosine, nearest = np.empty(size), np.empty(size, np.float32), np.empty(size, np.float32)
    left, values = np.empty(size, np.float64), np.empty(size, np.float64)
    for user in range(start, stop):
        fetch_ahead(vectors, rows, user)
        filled = pool_size(rows[user])
        price, count = price_of(setting, scores[user], filled), 0
        for position in range(min(n, filled)):
            most = price * _LARGEST_COSINE if position > 0 else 0.0
            while True:
                place, before = largest(values, count), count
                count = widened(scores[user], filled, count, values[place] if place >= 0 else -np.inf, most)
                if count == before:
                    break
                gather(vectors, rows[user], before, count, 1.0, block, scale)
                left[before:count], nearest[before:count] = scores[user, before:count], -np.inf
                values[before:count] = left[before:count]
                for earlier in range(position):
                    _draw_near(block, before, count, chosen[earlier], price, left, cosine, nearest, values)
            place = first_left(left) if place < 0 else place
            pick(source, target, user, place, position)
            left[place] = np.nan
            scaled(vectors[rows[user, place]], scale[place], chosen[position])
            _draw_near(block, 0, count, chosen[position], price, left, cosine, nearest, values)


@njit(cache=True, nogil=True)
def _draw_near(
    block: Array, start: int, stop: int, chosen: Array, price: float, left: Array, cosine: Array, nearest: Array, values: Array
) -> None:
    """The largest cosine of every candidate, and its value, after a further item was chosen."""
    products(block, start, stop, chosen, cosine)
    for i in range(np.uintp(start), np.uintp(stop)):
        nearest[i] = max(nearest[i], cosine[i])
        values[i] = left[i] - price * nearest[i]
