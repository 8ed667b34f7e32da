"""Gram-Schmidt over the candidates of a pool: how much of each one's direction the chosen items leave free.

A candidate stands as u = [1, v] / sqrt(2) with v its vector at length 1, so that <u, u'> = (1 + cos) / 2 lies in [0, 1] and
opposite items count as different (as in Chen et al. 2018, and Huang et al. 2021, who append the constant).
What is free of u is 1 - sum over chosen k of <u, b_k>^2 with b_k the orthonormal basis that the chosen items span: one
product with the newest b a candidate and step, O(n P D) a user. An item whose vector is zero shares only the constant with
others and still has length 1.

Arithmetic is float64 in a fixed order. The basis is kept as [W, D + 1], its products with every candidate as [W, P].
"""

import math

import numpy as np
from numba import njit

from retrieval.recall.list_kernels import Array, gather, products

_CONSTANT = math.sqrt(0.5)
SPENT = 1e-10
"""What is free of a candidate counts as nothing at or below this, where Chen et al. (2018) stop."""


@njit(cache=True, nogil=True)
def gather_lifted(vectors: Array, rows: Array, start: int, stop: int, block: Array, work: Array) -> None:
    """The candidates start to stop as columns u of `block` float64 [D + 1, P]."""
    gather(vectors, rows, start, stop, _CONSTANT, block[1:], work)
    block[0, start:stop] = _CONSTANT


@njit(cache=True, nogil=True)
def turn_away(block: Array, start: int, stop: int, direction: Array, shared: Array, free: Array) -> None:
    """What candidates start to stop share with a direction of the basis, and what is free of them without it."""
    products(block, start, stop, direction, shared)
    for i in range(np.uintp(start), np.uintp(stop)):
        free[i] = max(free[i] - shared[i] * shared[i], 0.0)


@njit(cache=True, nogil=True)
def make_direction(block: Array, place: int, free: float, slot: int, used: int, basis: Array, shares: Array, work: Array) -> None:
    """Make what is free of the candidate at `place`, by the first `used` rows of the basis, row `slot` of it.

    A candidate that has nothing free gives no direction: its row is zero.
    """
    direction = basis[slot]
    if free <= SPENT:
        direction[:] = 0.0
        return
    dimension, own = direction.shape[0], work[direction.shape[0] :]
    for k in range(used):
        own[k] = shares[k, place]
    products(basis[:used], 0, dimension, own, work)
    scale = 1.0 / math.sqrt(free)
    for d in range(dimension):
        direction[d] = (block[d, place] - work[d]) * scale
