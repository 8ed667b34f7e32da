"""Sliding spectrum decomposition (Huang et al., KDD 2021): relevance plus what a window has not shown yet.

The next item is the one with the largest f(i) + lambda * |u - its projection on the directions of the window|, the paper's
greedy algorithm with gamma = lambda: a modified Gram-Schmidt keeps what is free of every candidate, and gives back what
the item shares with it that leaves the window of the last w - 1 chosen ones. Directions are kept as they were when their
item was chosen: what an item had in common with earlier ones, which have left, does not return with it. That is the
paper's way of remembering what lies before the window. O(n P D) a user.

Differs from the paper: the volume of the items chosen so far is no factor of the norm (its form SSD*), because the product
of norms below 1 vanishes within a list; vectors are the model's item vectors at length 1 with the constant, scaled to
length 1 together; lambda may count standard deviations of the user's own pool. Equal values go to the item that stands
first in the pool. A norm is at most 1: candidates that score more than lambda below the best value are not looked at,
which changes no list.
"""

import math

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
    largest,
    pick,
    pool_size,
    price_of,
    widened,
)
from retrieval.recall.pools import Lists
from retrieval.recall.settings import RecallSettings
from retrieval.recall.spread import SPENT, gather_lifted, make_direction, turn_away

_LARGEST_NORM = 1.0 + 1e-9


def ssd(pools: Pools, context: ListContext, settings: RecallSettings) -> Lists:
    """The n items of each pool by sliding spectrum decomposition, in the order they are picked; scores stay those of the pool."""
    slots = settings.builder.compared(settings.n)
    return fill_lists(_ssd_users, pools, settings, np.asarray(needed(context.vectors, "vectors")), slots)


@njit(cache=True, nogil=True)
def _ssd_users(
    start: int, stop: int, source: PoolArrays, setting: tuple[float, bool], target: PoolArrays, vectors: Array, slots: int
) -> None:
    rows, scores, _ = source
    size, dimension, n = rows.shape[1], vectors.shape[1] + 1, target[0].shape[1]
    block, basis, shares = np.empty((dimension, size)), np.empty((slots, dimension)), np.empty((slots, size))
    left, free, values, work = np.empty(size), np.empty(size), np.empty(size), np.empty(dimension + slots)
    for user in range(start, stop):
        fetch_ahead(vectors, rows, user)
        filled = pool_size(rows[user])
        price, count = price_of(setting, scores[user], filled), 0
        for position in range(min(n, filled)):
            most = price * _LARGEST_NORM if position > 0 else price
            while True:
                place, before = largest(values, count), count
                count = widened(scores[user], filled, count, values[place] if place >= 0 else -np.inf, most)
                if count == before:
                    break
                gather_lifted(vectors, rows[user], before, count, block, free)
                left[before:count], free[before:count] = scores[user, before:count], 1.0
                for k in range(min(position, slots)):
                    turn_away(block, before, count, basis[k], shares[k], free)
                _weigh(left, before, count, free, price, values)
            place = first_left(left) if place < 0 else place
            pick(source, target, user, place, position)
            left[place] = np.nan
            slot = position % slots
            make_direction(block, place, free[place], slot, min(position, slots), basis, shares, work)
            if position >= slots:
                _give_back(shares[slot], count, free)
            turn_away(block, 0, count, basis[slot], shares[slot], free)
            _weigh(left, 0, count, free, price, values)


@njit(cache=True, nogil=True)
def _weigh(left: Array, start: int, stop: int, free: Array, price: float, values: Array) -> None:
    for i in range(np.uintp(start), np.uintp(stop)):
        values[i] = left[i] + price * (math.sqrt(free[i]) if free[i] > SPENT else 0.0)


@njit(cache=True, nogil=True)
def _give_back(shared: Array, count: int, free: Array) -> None:
    for i in range(count):
        free[i] += shared[i] * shared[i]
