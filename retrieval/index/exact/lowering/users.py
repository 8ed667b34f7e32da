"""A group of users as the product sees them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from retrieval.index.exact.lowering.kernels import lower_users

_UP = 1.0 + 2.0**-20


@dataclass(frozen=True)
class LoweredUsers:
    """The interests of U users in float32 or bfloat16.

    heads: uint16 or float32 [heads, lanes, width]; lanes past the last user and components past D are zero. limits:
    float64[U, 4] as `exact.kernels` takes them.
    """

    heads: np.ndarray
    limits: Float64[np.ndarray, "u 4"]

    @classmethod
    def of(
        cls,
        members: Int64[np.ndarray, "u"],
        interests: Float64[np.ndarray, "b k d"],
        valid: Bool[np.ndarray, "b k"],
        shape: tuple[int, int, int],
        item_unit: float,
        *,
        bits: bool,
        summing: float,
    ) -> "LoweredUsers":
        """The users `members` of a batch in an array of a given shape [heads, lanes, width]; `summing` as the engine says."""
        heads = np.zeros(shape, np.uint16 if bits else np.float32)
        units, norms = np.empty(len(members)), np.zeros((len(members), 2))
        lower_users(members, interests, valid, bits, heads, units, norms)
        return cls(heads, _limits(units * item_unit, norms * _UP, interests.shape[2], summing))


def _limits(
    units: Float64[np.ndarray, "u"], norms: Float64[np.ndarray, "u 2"], dimension: int, summing: float
) -> Float64[np.ndarray, "u 4"]:
    """The terms of the error bound that the package's docstring derives."""
    sums = summing * (dimension + 16) * 2.0**-23
    of_norm = (norms[:, 1] + sums * norms[:, 0]) * _UP
    of_residual = norms[:, 0] * (1.0 + sums) * _UP
    absolute = dimension * 2.0**-120 + 2.0**-150 / units
    return np.stack([of_norm, of_residual, absolute, units], axis=1)
