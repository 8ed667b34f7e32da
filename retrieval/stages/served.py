"""What recall hands on of a batch of users."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.index.pools import Pools
from retrieval.recall.pools import Lists
from retrieval.stages.user_vectors import EncodedUsers


@dataclass(frozen=True)
class ServedUsers:
    """A batch on its way: encoded users, their pools and lists, and the overlap of their interests' own lists.

    `recalled`: the pools as they were before they were re-scored, None where they are not.
    """

    encoded: EncodedUsers
    pools: Pools
    lists: Lists
    overlap: NDArray[np.float32] | None
    recalled: Pools | None = None
