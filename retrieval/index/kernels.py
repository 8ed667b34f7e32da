"""Bounded selection by (-score, row): a heap whose root is the worst kept item. Compiled, without the GIL."""

import numpy as np
from numba import njit

Array = np.ndarray


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


@njit(cache=True, nogil=True)
def scan(start: int, stop: int, block: Array, first_row: int, scores: Array, rows: Array) -> None:
    """Offer a block of scores float32[Q, n_block], whose columns are rows first_row.., to the heaps of queries start..stop-1.

    Rows must come in ascending order over the blocks: an equal score never replaces a kept one.
    """
    size = scores.shape[1]
    for query in range(start, stop):
        line, kept_scores, kept_rows = block[query], scores[query], rows[query]
        worst = kept_scores[0]
        for column in range(line.shape[0]):
            if line[column] > worst:
                replace_root(kept_scores, kept_rows, size, line[column], first_row + column)
                worst = kept_scores[0]


@njit(cache=True, nogil=True)
def drain_all(start: int, stop: int, scores: Array, rows: Array) -> None:
    """Turn the heaps of queries start..stop-1 into lists, best first; empty places get row -1."""
    for query in range(start, stop):
        drain(scores[query], rows[query])
        for position in range(scores.shape[1]):
            if scores[query, position] == -np.inf:
                rows[query, position] = -1
