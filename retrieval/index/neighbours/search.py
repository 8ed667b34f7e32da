"""Candidates of users from what their last items speak for."""

import numpy as np
from jaxtyping import Bool

from retrieval.core.errors import IntegrityError
from retrieval.index.neighbours.kernels import score_users
from retrieval.index.neighbours.table import Neighbours
from retrieval.index.pools import Pools, Seen
from retrieval.index.threads import over_chunks


class NeighbourSearch:
    """Scores items by the neighbours of a history's items.

    recent: how many of the newest events speak, each item once. n: size of a pool. blocked: bool[N], items nobody gets.
    Memory beside the table is 12 bytes an item and thread.

    Raises:
        IntegrityError: table and blocked do not belong together.
    """

    def __init__(self, table: Neighbours, recent: int, n: int, *, blocked: Bool[np.ndarray, "n"], threads: int = 0) -> None:
        self.table, self.recent, self.n, self.blocked, self.threads = table, recent, n, blocked, threads
        if len(table.offsets) != len(blocked) + 1:
            raise IntegrityError(f"neighbours of {len(table.offsets) - 1} items do not belong to a catalog of {len(blocked)}")

    def __call__(self, histories: Seen, seen: Seen) -> Pools:
        """The pools of a batch by (-score, row), of interest 0; shorter than n where too little is known.

        histories: visible events, oldest first. seen: what is left out.
        """
        pools, table = Pools.empty(len(histories.offsets) - 1, self.n), self.table
        histories = histories if table.known is None else _of_items(histories, table.known)
        arguments = ((histories.offsets, histories.items), self.recent, (table.offsets, table.rows, table.weights))
        left_out, out = (self.blocked, seen.offsets, seen.items), (pools.rows, pools.scores, pools.interest)
        over_chunks(score_users, len(pools.rows), self.threads, *arguments, left_out, out)
        return pools


def _of_items(histories: Seen, chosen: Bool[np.ndarray, "n"]) -> Seen:
    """The events on some items."""
    kept = chosen[histories.items]
    return Seen(np.concatenate([[0], np.cumsum(kept)])[histories.offsets], histories.items[kept])
