"""Which members of a set stand for the rest, for every prefix of a sequence of members."""

import numpy as np
from numba import njit

LEAST_GAIN = 1e-3
"""A member that brings less is stood for already, up to the rounding of cosines: position 0 then stands for it."""
EQUAL_GAINS = 1e-4
"""Gains so near to each other are equal: of two members alone each stands for the other as well, whatever the rounding."""


@njit(cache=True, nogil=True)
def best_cover_of_prefixes(alike: np.ndarray, lengths: np.ndarray, chosen: np.ndarray) -> None:
    """Greedy facility location: into `chosen` int64[B, P, K], the positions that together stand for the first `lengths` int64[B, P] rows.

    `alike` float32[B, L, L] is symmetric; lengths grow from prefix to prefix. Prefixes are taken in turn: a member whose predecessors
    are those of the prefix before has the gains that it had there, but for what the new members add.
    """
    rows, prefixes, count = chosen.shape
    longest = alike.shape[1]
    gains = np.empty((count, longest), dtype=np.float32)
    covered = np.empty((count, longest), dtype=np.float32)
    for row in range(rows):
        known = 0
        for prefix in range(prefixes):
            length = lengths[row, prefix]
            same = prefix > 0
            for place in range(count):
                first = known if same else 0
                if not same:
                    gains[place, :length] = 0.0
                _cover(alike[row], covered, place, chosen[row, prefix, place - 1], first, length)
                if same:
                    gains[place, known:length] = 0.0
                    _gain(alike[row], covered[place], gains[place], known, length, 0, known)
                _gain(alike[row], covered[place], gains[place], 0, length, first, length)
                best = _first_best(gains[place], length)
                chosen[row, prefix, place] = best
                same = same and chosen[row, prefix - 1, place] == best
            known = length


@njit(cache=True, nogil=True)
def _cover(alike: np.ndarray, covered: np.ndarray, place: int, before: int, first: int, length: int) -> None:
    """How well the exemplars before this place stand for the events [first, length)."""
    for event in range(first, length):
        covered[place, event] = 0.0 if place == 0 else max(covered[place - 1, event], alike[before, event])


@njit(cache=True, nogil=True)
def _gain(alike: np.ndarray, covered: np.ndarray, gains: np.ndarray, low: int, high: int, first: int, past: int) -> None:
    """Add what the events [first, past) bring to the gains of the events [low, high), an event after the other."""
    for event in range(first, past):
        known = covered[event]
        for other in range(low, high):
            gains[other] += max(np.float32(0.0), alike[event, other] - known)


@njit(cache=True, nogil=True)
def _first_best(gains: np.ndarray, length: int) -> int:
    """The first of the members whose gains are the greatest, or are so but for rounding."""
    if length == 0:
        return 0
    most = gains[:length].max()
    best = 0
    while gains[best] < most - EQUAL_GAINS:
        best += 1
    return best if most >= LEAST_GAIN else 0
