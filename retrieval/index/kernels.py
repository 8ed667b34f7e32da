"""The score of an item, sets of rows, and selection by (-score, row): compiled, without the GIL, one implementation.

The score is defined here once: the float64 inner product in one fixed order of additions, rounded to float32, the
largest over the valid interests. Products of float32 numbers are exact in float64, so the result does not depend on the
machine's fused operations either.
"""

import numpy as np
from numba import njit

from retrieval.index.lanes import LANES, lane_dot

Array = np.ndarray
_EMPTY = -1
_HASH = np.uint64(0x9E3779B97F4A7C15)


@njit(cache=True, nogil=True, inline="always")
def is_worse(score: float, row: int, other_score: float, other_row: int) -> bool:
    """Whether the first item comes after the second in the order (-score, row)."""
    return score < other_score or (score == other_score and row > other_row)


@njit(cache=True, nogil=True)
def replace_root(scores: Array, rows: Array, size: int, score: float, row: int) -> None:
    """Put an item in the place of the heap's worst one."""
    position = 0
    while True:
        child = 2 * position + 1
        if child >= size:
            break
        if child + 1 < size and is_worse(scores[child + 1], rows[child + 1], scores[child], rows[child]):
            child += 1
        if not is_worse(scores[child], rows[child], score, row):
            break
        scores[position], rows[position] = scores[child], rows[child]
        position = child
    scores[position], rows[position] = score, row


@njit(cache=True, nogil=True)
def drain(scores: Array, rows: Array) -> None:
    """Turn a heap into a list, best first, in place."""
    for size in range(len(scores) - 1, 0, -1):
        score, row = scores[size], rows[size]
        scores[size], rows[size] = scores[0], rows[0]
        replace_root(scores, rows, size, score, row)


@njit(cache=True, nogil=True, inline="always")
def dot(left: Array, right: Array) -> float:
    """The inner product of a float32 and a float64 vector in a fixed order: eight lanes, their sum in halves, then the rest."""
    size = left.shape[0]
    whole = size - size % LANES
    total = lane_dot(left, right, whole)
    for i in range(whole, size):
        total += np.float64(left[i]) * right[i]
    return total


@njit(cache=True, nogil=True)
def best_interest(vector: Array, interests: Array, valid: Array) -> tuple[np.float32, int]:
    """The score of an item float32[D] and which of interests float64[K, D] gives it; the lowest wins a tie."""
    best, winner = np.float32(-np.inf), -1
    for interest in range(interests.shape[0]):
        if valid[interest]:
            score = np.float32(dot(vector, interests[interest]))
            if score > best or winner < 0:
                best, winner = score, interest
    return best, winner


@njit(cache=True, nogil=True, inline="always")
def insert(table: Array, row: int) -> bool:
    """Add a row to a hash set of a power-of-two size; false when it is there already."""
    mask = table.shape[0] - 1
    slot = np.int64((np.uint64(row) * _HASH) >> np.uint64(40)) & mask
    while table[slot] != _EMPTY:
        if table[slot] == row:
            return False
        slot = (slot + 1) & mask
    table[slot] = row
    return True


@njit(cache=True, nogil=True, inline="always")
def contains(table: Array, row: int) -> bool:
    """Whether a hash set holds a row; an array without a place holds none."""
    if table.shape[0] == 0:
        return False
    mask = table.shape[0] - 1
    slot = np.int64((np.uint64(row) * _HASH) >> np.uint64(40)) & mask
    while table[slot] != _EMPTY:
        if table[slot] == row:
            return True
        slot = (slot + 1) & mask
    return False


@njit(cache=True, nogil=True)
def table_size(entries: int) -> int:
    """The power of two that keeps a hash set at most half full."""
    size = 16
    while size < 2 * entries:
        size *= 2
    return size


@njit(cache=True, nogil=True)
def sort_pool(rows: Array, scores: Array, interest: Array, size: int) -> None:
    """Order by (-score, row) in place; nearly linear on the nearly sorted pools that come here (Shell's sort)."""
    gap = 1
    while gap < size // 9:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, size):
            row, score, winner, j = rows[i], scores[i], interest[i], i
            while j >= gap and (scores[j - gap] < score or (scores[j - gap] == score and rows[j - gap] > row)):
                rows[j], scores[j], interest[j] = rows[j - gap], scores[j - gap], interest[j - gap]
                j -= gap
            rows[j], scores[j], interest[j] = row, score, winner
        gap //= 3
