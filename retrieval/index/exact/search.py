"""Exact search of users with several interests: the maximum is taken before the selection, one scan for all of them."""

import numpy as np
from jaxtyping import Bool, Float64, Int64

from retrieval.index.exact.engines import AbstractEngine, Arrays
from retrieval.index.exact.kernels import finish, seen_sets
from retrieval.index.exact.lowering.users import LoweredUsers
from retrieval.index.pools import Pools, Seen
from retrieval.index.threads import over_chunks

# Below this share of open items an order of their own is worth its memory.
_OPEN_SHARE = 0.5
Batch = tuple[np.ndarray, np.ndarray, Seen]
_BYTES_A_CANDIDATE = 12
# Candidates a group may hold, in blocks of products.
_BLOCKS_OF_CANDIDATES = 4


class ExactSearch:
    """The best items of users by the score of `index.kernels`, whatever engine finds the candidates.

    engine: over the items of an index. blocked: bool[N], items nobody gets. threads: 0 for all cores.
    """

    def __init__(self, engine: AbstractEngine, blocked: Bool[np.ndarray, "n"], threads: int) -> None:
        open_items = len(blocked) - int(blocked.sum())
        self.engine = engine if open_items >= _OPEN_SHARE * len(blocked) else engine.over(engine.items.without(blocked))
        self.blocked, self.threads, self._open = blocked, threads, open_items

    def __call__(self, interests: Float64[np.ndarray, "b k d"], valid: Bool[np.ndarray, "b k"], seen: Seen, n: int) -> Pools:
        """The n best items of each user of a batch that the user has not seen, by (-score, row).

        Args:
            interests: float32 numbers; scores must not overflow float32.
            valid: which of them count; users without one get nothing.
            seen: rows of the index.
            n: at least 1.
        """
        pools = Pools.empty(len(interests), n)
        heads = _padded_heads(valid.sum(axis=1))
        for count in np.unique(heads[heads > 0]) if self._open else ():
            members = np.flatnonzero(heads == count)
            over_chunks(self._search_part, len(members), self.threads, members, int(count), (interests, valid, seen), pools)
        return pools

    def _search_part(self, start: int, stop: int, members: Int64[np.ndarray, "g"], heads: int, batch: Batch, pools: Pools) -> None:
        n = min(pools.rows.shape[1], self._open)
        size = self._users(heads, n)
        with self.engine.one_thread():
            for first in range(start, stop, size):
                self._search_group(members[first : min(first + size, stop)], heads, n, batch, pools)

    def _users(self, heads: int, n: int) -> int:
        """Users of a group: enough to fill the product, and no more candidates than the memory set aside for them."""
        room = (self.engine.block_mb << 20) * _BLOCKS_OF_CANDIDATES // (_BYTES_A_CANDIDATE * _capacity(n))
        return max(1, min(self.engine.columns // heads, room))

    def _search_group(self, members: Int64[np.ndarray, "u"], heads: int, n: int, batch: Batch, pools: Pools) -> None:
        interests, valid, seen = batch
        engine = self.engine
        items = engine.items
        lanes = -(-len(members) // engine.lanes) * engine.lanes
        lowered = LoweredUsers.of(members, interests, valid, (heads, lanes, engine.lowered.width), items.unit, bits=engine.bits)
        group = _empty_group(lowered, _capacity(n), engine.cuts(lanes))
        catalog = (items.vectors, items.order, items.norms, engine.lowered.residuals, self.blocked)
        users = (members, interests, valid, *seen_sets(members, seen.offsets, seen.items))
        engine.offer(lowered, n, group, catalog, users)
        finish(n, group, catalog, users, engine.rounding, (pools.rows, pools.scores, pools.interest))


def _padded_heads(counts: Int64[np.ndarray, "b"]) -> Int64[np.ndarray, "b"]:
    """Interests a user is searched with: 0, 1, 2 or a multiple of 4, so that users of like counts share a product."""
    return np.where(counts <= 2, counts, -(-counts // 4) * 4)


def _capacity(n: int) -> int:
    """Candidates a user may have: half of what lies beyond n is for those that only the error bound keeps."""
    return 2 * n + 256


def _empty_group(lowered: LoweredUsers, capacity: int, cuts: np.ndarray) -> Arrays:
    users = len(lowered.limits)
    positions, values = np.empty((users, capacity), np.int32), np.empty((users, capacity))
    return positions, values, np.zeros((users, 3), np.int64), np.full(users, -np.inf), lowered.limits, cuts
