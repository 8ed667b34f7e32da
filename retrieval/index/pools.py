"""Users in and candidates out of a search; B users of a batch, K interests, D dimensions, P candidates a user."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32, Int64, Integer


@dataclass(frozen=True)
class Seen:
    """What each user of a batch had before: items[offsets[u]:offsets[u + 1]], item rows in any order."""

    offsets: Int64[np.ndarray, "b_plus_1"]
    items: Integer[np.ndarray, "e"]

    @classmethod
    def nothing(cls, users: int) -> "Seen":
        """No user has seen anything."""
        return cls(np.zeros(users + 1, dtype=np.int64), np.empty(0, dtype=np.int32))


@dataclass(frozen=True)
class Pools:
    """The candidates of each user by (-score, row).

    rows: int64, -1 past the last. scores: float32, the largest inner product with a valid interest, -inf past the
    last. interest: int32, the interest that gives the score (the lowest of equals), -1 past the last.
    """

    rows: Int64[np.ndarray, "b p"]
    scores: Float32[np.ndarray, "b p"]
    interest: Int32[np.ndarray, "b p"]

    @classmethod
    def empty(cls, users: int, size: int) -> "Pools":
        """Pools without a candidate, to be filled."""
        shape = (users, size)
        return cls(np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int32))
