"""The types between search and lists; B users of a batch, K interests, D dimensions, P and n candidates a user."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64, Integer


@dataclass(frozen=True)
class Seen:
    """What each user of a batch had before: items[offsets[u]:offsets[u + 1]], item rows in any order."""

    offsets: Int64[np.ndarray, "b_plus_1"]
    items: Integer[np.ndarray, "e"]

    @classmethod
    def nothing(cls, users: int) -> "Seen":
        """No user has seen anything."""
        return cls(np.zeros(users + 1, dtype=np.int64), np.empty(0, dtype=np.int32))

    def part(self, start: int, stop: int) -> "Seen":
        """The same for users start..stop-1 of the batch."""
        offsets = self.offsets[start : stop + 1]
        return Seen(offsets - offsets[0], self.items[offsets[0] : offsets[-1]])


@dataclass(frozen=True)
class UserBatch:
    """What an encoder says about a batch of users.

    users: user rows. interests: float32[B, K, D], of which valid bool[B, K] may be searched.
    """

    users: Int64[np.ndarray, "b"]
    interests: Float32[np.ndarray, "b k d"]
    valid: Bool[np.ndarray, "b k"]
    seen: Seen

    def parts(self, size: int) -> Iterator["UserBatch"]:
        """The batch in pieces of at most `size` users."""
        for start in range(0, len(self.users), size):
            stop = min(start + size, len(self.users))
            yield UserBatch(self.users[start:stop], self.interests[start:stop], self.valid[start:stop], self.seen.part(start, stop))


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


@dataclass(frozen=True)
class Lists:
    """The list of each user in rank order, with the fields and fillers of `Pools`; scores need not descend."""

    rows: Int64[np.ndarray, "b n"]
    scores: Float32[np.ndarray, "b n"]
    interest: Int32[np.ndarray, "b n"]
