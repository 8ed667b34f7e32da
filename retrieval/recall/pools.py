"""What list building hands on; B users of a batch, n candidates a user."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32, Int64

from retrieval.index.pools import Pools


@dataclass(frozen=True)
class Lists:
    """The list of each user in rank order, with the fields and fillers of `Pools`; scores need not descend."""

    rows: Int64[np.ndarray, "b n"]
    scores: Float32[np.ndarray, "b n"]
    interest: Int32[np.ndarray, "b n"]

    @classmethod
    def empty(cls, users: int, size: int) -> "Lists":
        """Lists without an item, to be filled."""
        pools = Pools.empty(users, size)
        return cls(pools.rows, pools.scores, pools.interest)
