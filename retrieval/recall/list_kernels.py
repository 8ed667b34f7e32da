"""What the compiled list builders share: sizes and prices of pools, unit vectors of candidates, the pick itself.

Every builder goes over its users in one compiled loop. Scores descend along a pool, so a scan for the best value may stop
where no score alone is larger; of equal values the candidate that stands first in the pool wins.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from retrieval.index.exact.intrinsics import prefetch
from retrieval.index.kernels import dot
from retrieval.index.pools import Pools
from retrieval.index.threads import over_chunks
from retrieval.recall.pools import Lists
from retrieval.recall.settings import RecallSettings

Array = np.ndarray
PoolArrays = tuple[Array, Array, Array]
_LANES = 8
# Floats that the processor fetches at once.
_LINE = 16
STEP = 32
"""Candidates that builders with a bound take in at a time."""


def fill_lists(kernel: Callable[..., Any], pools: Pools, settings: RecallSettings, *arguments: Any) -> Lists:
    """Call kernel(start, stop, pool arrays, (lambda, scale_free), list arrays, *arguments) over all users, in threads."""
    lists = Lists.empty(len(pools.rows), settings.n)
    source, target = (pools.rows, pools.scores, pools.interest), (lists.rows, lists.scores, lists.interest)
    price = (float(settings.lambda_), settings.scale_free)
    over_chunks(kernel, len(pools.rows), settings.threads, source, price, target, *arguments)
    return lists


@njit(cache=True, nogil=True)
def fetch_ahead(vectors: Array, rows: Array, user: int) -> None:
    """Ask for the vectors of the next user's candidates, which lie anywhere, while this user's list is built."""
    if user + 1 < rows.shape[0]:
        for row in rows[user + 1]:
            for component in range(0, vectors.shape[1] if row >= 0 else 0, _LINE):
                prefetch(vectors, row * vectors.shape[1] + component)


@njit(cache=True, nogil=True)
def pool_size(rows: Array) -> int:
    """Candidates in a pool."""
    filled = 0
    while filled < rows.shape[0] and rows[filled] >= 0:
        filled += 1
    return filled


@njit(cache=True, nogil=True)
def deviation(scores: Array, filled: int) -> float:
    """The standard deviation of a pool's finite scores in a fixed order of additions; 1 where they do not differ."""
    while filled > 0 and scores[filled - 1] == -np.inf:
        filled -= 1
    if filled == 0 or scores[0] == scores[filled - 1]:
        return 1.0
    mean, variance = 0.0, 0.0
    for i in range(filled):
        mean += np.float64(scores[i]) / filled
    for i in range(filled):
        variance += (np.float64(scores[i]) - mean) ** 2 / filled
    return math.sqrt(variance)


@njit(cache=True, nogil=True)
def price_of(setting: tuple[float, bool], scores: Array, filled: int) -> float:
    """Lambda on the scores' scale, or in standard deviations of this pool."""
    return setting[0] * (deviation(scores, filled) if setting[1] else 1.0)


@njit(cache=True, nogil=True)
def widened(scores: Array, filled: int, count: int, best: float, most: float) -> int:
    """How many candidates have to be looked at before the best value of the first `count` is the best of all.

    Diversity is worth at most `most`, and scores descend: when the next candidate cannot be better, none can. Builders begin
    with a few candidates and take in more as they must, so that a small lambda never touches the end of a pool; no list
    changes by it. `best` -inf: none of the first `count` can be chosen.
    """
    wanted = count
    if best == -np.inf:
        wanted = min(filled, count + 1)
    else:
        while wanted < filled and scores[wanted] + most > best:
            wanted += 1
    return wanted if wanted == count else min(filled, wanted + STEP - 1 - (wanted - 1) % STEP)


@njit(cache=True, nogil=True)
def pick(source: PoolArrays, target: PoolArrays, user: int, place: int, position: int) -> None:
    """Put the candidate at a place of the pool at a position of the list."""
    target[0][user, position] = source[0][user, place]
    target[1][user, position] = source[1][user, place]
    target[2][user, position] = source[2][user, place]


@njit(cache=True, nogil=True)
def first_left(left: Array) -> int:
    """The first candidate that is not taken (NaN)."""
    place = 0
    while np.isnan(left[place]):
        place += 1
    return place


@njit(cache=True, nogil=True)
def largest(values: Array, count: int) -> int:
    """The first of the largest values, passing over NaN; -1 when all of them are -inf or NaN."""
    best, place = -np.inf, -1
    whole = count - count % _LANES
    for i in range(0, whole, _LANES):
        higher = False
        for j in range(i, i + _LANES):
            higher |= values[j] > best
        if higher:
            for j in range(i, i + _LANES):
                if values[j] > best:
                    best, place = values[j], j
    for j in range(whole, count):
        if values[j] > best:
            best, place = values[j], j
    return place


@njit(cache=True, nogil=True)
def sink(values: Array, places: Array, counts: Array, heads: int, value: float, place: int, count: int) -> None:
    """Replace the best entry of a heap: larger values first, equal ones by place in the pool; each has a count of its own."""
    slot = 0
    while True:
        child = 2 * slot + 1
        if child >= heads:
            break
        if child + 1 < heads and _comes_first(values[child + 1], places[child + 1], values[child], places[child]):
            child += 1
        if not _comes_first(values[child], places[child], value, place):
            break
        values[slot], places[slot], counts[slot] = values[child], places[child], counts[child]
        slot = child
    values[slot], places[slot], counts[slot] = value, place, count


@njit(cache=True, nogil=True, inline="always")
def _comes_first(value: float, place: int, other_value: float, other_place: int) -> bool:
    return value > other_value or (value == other_value and place < other_place)


# Loops over candidates from `start` count without a sign: numba would otherwise ask at each whether it counts from the
# end of the array, and could not put several of them into one instruction.


@njit(cache=True, nogil=True)
def gather(vectors: Array, rows: Array, start: int, stop: int, length: float, block: Array, scale: Array) -> None:
    """The vectors of candidates start to stop at one length as columns of `block` [D, P], and what they are multiplied by.

    Candidates lie side by side so that products with one vector go over all of them at once, each of them summed in one
    order: the bits depend neither on the machine's vector width nor on the other candidates. A zero vector stays one.
    """
    for i in range(start, stop):
        square = dot(vectors[rows[i]], vectors[rows[i]])
        scale[i] = length / math.sqrt(square) if square > 0.0 else 0.0
    whole, unit = stop - (stop - start) % _LANES, np.empty((_LANES, block.shape[0]), block.dtype)
    for i in range(start, whole, _LANES):
        for j in range(_LANES):
            scaled(vectors[rows[i + j]], scale[i + j], unit[j])
        _transpose(unit, block[:, i : i + _LANES])
    for i in range(whole, stop):
        for d in range(block.shape[0]):
            block[d, i] = vectors[rows[i], d] * scale[i]


@njit(cache=True, nogil=True)
def _transpose(unit: Array, out: Array) -> None:
    """Eight vectors as columns."""
    a, b, c, d, e, f, g, h = unit[0], unit[1], unit[2], unit[3], unit[4], unit[5], unit[6], unit[7]
    for k in range(np.uintp(out.shape[0])):
        line = out[k]
        line[0], line[1], line[2], line[3] = a[k], b[k], c[k], d[k]
        line[4], line[5], line[6], line[7] = e[k], f[k], g[k], h[k]


@njit(cache=True, nogil=True)
def scaled(vector: Array, scale: float, out: Array) -> None:
    """A vector times a number: what `gather` makes a column of, in one piece."""
    for d in range(vector.shape[0]):
        out[d] = vector[d] * scale


@njit(cache=True, nogil=True)
def products(block: Array, start: int, stop: int, vector: Array, out: Array) -> None:
    """The inner products of columns start to stop of `block` [D, P] with a vector, each summed from the first dimension on."""
    out[start:stop] = 0
    first, end = np.uintp(start), np.uintp(stop)
    whole = block.shape[0] - block.shape[0] % _LANES
    for d in range(0, whole, _LANES):
        p, q, r, s = vector[d], vector[d + 1], vector[d + 2], vector[d + 3]
        t, u, v, w = vector[d + 4], vector[d + 5], vector[d + 6], vector[d + 7]
        a, b, c, e = block[d], block[d + 1], block[d + 2], block[d + 3]
        f, g, h, j = block[d + 4], block[d + 5], block[d + 6], block[d + 7]
        for i in range(first, end):
            half = (((out[i] + p * a[i]) + q * b[i]) + r * c[i]) + s * e[i]
            out[i] = (((half + t * f[i]) + u * g[i]) + v * h[i]) + w * j[i]
    for d in range(whole, block.shape[0]):
        line, factor = block[d], vector[d]
        for i in range(first, end):
            out[i] += factor * line[i]
