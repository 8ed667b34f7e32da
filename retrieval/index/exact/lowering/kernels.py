"""Rounding vectors to float32 or bfloat16 after a multiplication by a power of two; compiled, without the GIL."""

import numpy as np
from numba import njit

Array = np.ndarray
# The smallest normal number: what lies below is zero, because processors differ in whether they take it for zero.
_SMALLEST = np.float32(2.0**-126)


@njit(cache=True, nogil=True)
def to_bfloat16(value: np.float32) -> np.uint16:
    """The bits of a finite number, |value| <= 1, rounded to nearest even."""
    bits = np.float32(value).view(np.uint32)
    return np.uint16((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))


@njit(cache=True, nogil=True)
def from_bfloat16(bits: np.uint16) -> np.float32:
    """The number that the bits stand for."""
    whole = np.uint32(np.uint32(bits) << np.uint32(16))
    return whole.view(np.float32)


@njit(cache=True, nogil=True)
def _lower(vector: Array, scale: float, bits: bool, out: Array) -> tuple[float, float]:
    """Write a vector times `scale`; the squares of its norm before, and of its difference to what was written."""
    norm, residual = 0.0, 0.0
    for i in range(vector.shape[0]):
        value = np.float64(vector[i]) * scale
        low = np.float32(value)
        if abs(low) < _SMALLEST:
            low = np.float32(0.0)
        if bits:
            out[i] = to_bfloat16(low)
            low = from_bfloat16(out[i])
        else:
            out[i] = low
        norm += value * value
        residual += (value - low) * (value - low)
    return norm, residual


@njit(cache=True, nogil=True)
def squares(start: int, stop: int, vectors: Array, out: Array) -> None:
    """The squared norms float64[N] of vectors start..stop-1."""
    for row in range(start, stop):
        total = 0.0
        for value in vectors[row]:
            total += np.float64(value) * np.float64(value)
        out[row] = total


@njit(cache=True, nogil=True)
def round_items(start: int, stop: int, vectors: Array, order: Array, scale: float, out: Array, residuals: Array) -> None:
    """Write the vectors of positions start..stop-1 of the order to out uint16 [M, >= D] and their squared residuals to float64[M]."""
    for position in range(start, stop):
        residuals[position] = _lower(vectors[order[position]], scale, True, out[position])[1]


@njit(cache=True, nogil=True)
def lower_users(members: Array, interests: Array, valid: Array, bits: bool, out: Array, units: Array, norms: Array) -> None:
    """Write the valid interests of users to out [heads, lanes, >= D]; users with fewer repeat their first.

    units float64[U]: the power of two that takes the largest component of a user to at most 1. norms float64[U, 2]: the
    largest norm of a user's lowered interests and the largest norm of a residual.
    """
    for user in range(members.shape[0]):
        member, head = members[user], 0
        largest = 0.0
        for k in range(interests.shape[1]):
            if valid[member, k]:
                for value in interests[member, k]:
                    largest = max(largest, abs(value))
        units[user] = 1.0
        while largest > units[user]:
            units[user] *= 2.0
        while 0.0 < largest <= 0.5 * units[user]:
            units[user] *= 0.5
        for k in range(interests.shape[1]):
            if valid[member, k]:
                norm, residual = _lower(interests[member, k], 1.0 / units[user], bits, out[head, user])
                norms[user, 1] = max(norms[user, 1], np.sqrt(residual))
                norms[user, 0] = max(norms[user, 0], np.sqrt(norm) + np.sqrt(residual))
                head += 1
        for spare in range(head, out.shape[0]):
            out[spare, user] = out[0, user]
