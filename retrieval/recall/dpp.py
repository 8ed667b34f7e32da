"""Greedy MAP of a determinantal point process (Chen, Zhang and Zhou, NeurIPS 2018, sections 3 to 5).

The kernel is L = diag(q) S diag(q) with q = exp(alpha f), S = (1 + cos) / 2 + jitter on the diagonal, and alpha =
theta / (2 (1 - theta)): the next item is the one that adds most to theta * sum f + (1 - theta) * log det S.
With lambda = (1 - theta) / theta that is the largest

    f(i) + lambda * log(what is free of i: det S of the list with i / det S of the list without),

which is the score order at lambda = 0. An item with nothing free (1e-10 or less) has probability zero;
when none is left but such, as when the rank of S is spent without a jitter, the rest of the list is filled by score.
With a window w only the last w - 1 chosen items count (section 4): when the oldest leaves, rotations take it out of the
factor of S, of the basis and of every candidate's row at once.

Differs from the paper: S is the Gram matrix of known vectors, so that the newest row of the factor is one product of
D + 1 terms a candidate and not of D and the list's length; jitter keeps S of full rank, an exact copy then costs
lambda * -log(2 jitter). Values are compared as products exp(f / lambda) * free, whose first factor is taken once a user and not
a logarithm at every step; it is told from the best score left, so that a small lambda makes no numbers that float64 lacks.
lambda may count standard deviations of the user's own pool. Equal values go to the item that stands first in the pool.
Nothing is freer than an item alone: candidates whose score is below the best value are not looked at, which changes no list.
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

# More than the rounding of what is free.
_SLACK = 1e-9
_LOWEST, _VANISHING = -700.0, 1e-200


def dpp(pools: Pools, context: ListContext, settings: RecallSettings) -> Lists:
    """The n items of each pool by greedy MAP, in the order they are picked; scores stay those of the pool."""
    slots, jitter = settings.builder.compared(settings.n), settings.builder.jitter
    return fill_lists(_dpp_users, pools, settings, np.asarray(needed(context.vectors, "vectors")), slots, jitter)


@njit(cache=True, nogil=True)
def _dpp_users(
    start: int,
    stop: int,
    source: PoolArrays,
    setting: tuple[float, bool],
    target: PoolArrays,
    vectors: Array,
    slots: int,
    jitter: float,
) -> None:
    rows, scores, _ = source
    size, dimension, n = rows.shape[1], vectors.shape[1] + 1, target[0].shape[1]
    block, basis, shares = np.empty((dimension, size)), np.empty((slots, dimension)), np.empty((slots, size))
    left, free, values, weight = np.empty(size), np.empty(size), np.empty(size), np.empty(size)
    places, lengths, work = np.empty(slots, np.int64), np.empty(slots), np.empty(max(size, dimension + slots))
    for user in range(start, stop):
        fetch_ahead(vectors, rows, user)
        filled = pool_size(rows[user])
        price, count, used, anchor = price_of(setting, scores[user], filled), 0, 0, scores[user, 0]
        most = price * (math.log(1.0 + jitter) + _SLACK)
        for position in range(min(n, filled) if price > 0.0 else 0):
            place, anchor = _likeliest(left, count, free, price, anchor, weight, values)
            while True:
                best, before = left[place] + price * math.log(free[place]) if place >= 0 else -np.inf, count
                count = widened(scores[user], filled, count, best, most)
                if count == before:
                    break
                gather_lifted(vectors, rows[user], before, count, block, values)
                left[before:count], free[before:count] = scores[user, before:count], 1.0 + jitter
                for k in range(used):
                    turn_away(block, before, count, basis[k], shares[k], free)
                _weigh(left, before, count, price, anchor, weight)
                place, anchor = _likeliest(left, count, free, price, anchor, weight, values)
            place = first_left(left) if place < 0 else place
            pick(source, target, user, place, position)
            left[place], weight[place] = np.nan, np.nan
            if used == slots:
                used = _drop_oldest(places, lengths, basis, shares, free, work, count)
            places[used], lengths[used] = place, math.sqrt(free[place]) if free[place] > SPENT else 0.0
            make_direction(block, place, free[place], used, used, basis, shares, work)
            turn_away(block, 0, count, basis[used], shares[used], free)
            used += 1
        for position in range(0 if price > 0.0 else min(n, filled)):
            pick(source, target, user, position, position)


@njit(cache=True, nogil=True)
def _likeliest(left: Array, count: int, free: Array, price: float, anchor: float, weight: Array, values: Array) -> tuple[int, float]:
    """The candidate of the largest value, -1 where none has something free, and the anchor that its weight is told from.

    Where that is so much better than what is left that weights vanish, the best score left becomes the anchor.
    """
    place = _largest_product(count, free, weight, values)
    if count > 0 and (place < 0 or values[place] < _VANISHING):
        for i in range(count):
            values[i] = left[i] if free[i] > SPENT else -np.inf
        place = largest(values, count)
        if place >= 0:
            anchor = left[place]
            _weigh(left, 0, count, price, anchor, weight)
            place = _largest_product(count, free, weight, values)
    return place, anchor


@njit(cache=True, nogil=True)
def _largest_product(count: int, free: Array, weight: Array, values: Array) -> int:
    for i in range(np.uintp(count)):
        values[i] = weight[i] * free[i] if free[i] > SPENT else -np.inf
    return largest(values, count)


@njit(cache=True, nogil=True)
def _weigh(left: Array, start: int, stop: int, price: float, anchor: float, weight: Array) -> None:
    """exp(score / price), with the anchor's at 1; what cannot be chosen before the anchor has moved weighs nothing."""
    for i in range(start, stop):
        exponent = (left[i] - anchor) / price
        weight[i] = 0.0 if exponent < _LOWEST else math.exp(exponent)


@njit(cache=True, nogil=True)
def _drop_oldest(places: Array, lengths: Array, basis: Array, shares: Array, free: Array, work: Array, count: int) -> int:
    """Take the first direction out of the factor; how many are left.

    The factor of the items from the second on loses its first column, and rotations of two columns at a time make it
    triangular again; the basis and the rows of the candidates turn with it. What they had in the last direction is free.
    """
    last = shares.shape[0] - 1
    turn, carried = np.empty((last, 2)), work
    carried[:count] = shares[0, :count]
    for k in range(last):
        own, lost = lengths[k + 1], carried[places[k + 1]]
        length = math.hypot(own, lost)
        # A copy of the oldest had nothing of its own; now the direction is the copy's.
        spent = length * length <= SPENT
        turn[k, 0], turn[k, 1] = (1.0, 0.0) if spent else (own / length, lost / length)
        _turn(shares[k], shares[k + 1], carried, turn[k], count)
        places[k], lengths[k] = places[k + 1], 0.0 if spent else length
    for i in range(count):
        free[i] += carried[i] * carried[i]
    carried[: basis.shape[1]] = basis[0]
    for k in range(last):
        _turn(basis[k], basis[k + 1], carried, turn[k], basis.shape[1])
    return int(last)


@njit(cache=True, nogil=True)
def _turn(to: Array, row: Array, carried: Array, turn: Array, count: int) -> None:
    """Rotate a row and what is carried along; the row moves up by one."""
    cosine, sine = turn[0], turn[1]
    for i in range(count):
        own, lost = row[i], carried[i]
        to[i] = cosine * own + sine * lost
        carried[i] = cosine * lost - sine * own
