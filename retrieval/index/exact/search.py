"""Exact search of users with several interests: the maximum is taken before the selection, one scan for all of them."""

import math

import numpy as np
from jaxtyping import Bool, Float64, Int64

from retrieval.index.exact.engines import AbstractEngine, Arrays
from retrieval.index.exact.kernels import finish, seen_sets, settle_all
from retrieval.index.exact.lowering.users import LoweredUsers
from retrieval.index.pools import Pools, Seen
from retrieval.index.threads import over_chunks

# Below this share of open items an order of their own is worth its memory.
_OPEN_SHARE = 0.5
Batch = tuple[np.ndarray, np.ndarray, Seen]
_BYTES_A_CANDIDATE = 12
# Candidates a group may hold, in blocks of products.
_BLOCKS_OF_CANDIDATES = 4
# The pilot looks at every so many-th item, if that leaves so many items for each that it is asked for.
_STRIDE, _ITEMS_ASKED = 16, 64


class ExactSearch:
    """The best items of users by the score of `index.kernels`, whatever engine finds the candidates.

    A pilot over every 16th item guesses what the n-th best scores, a little too low, so that few candidates are kept from
    the first item on. The guess is proven afterwards by n items that reach it; a user for whom it was too high is
    searched again without one.

    engine: over the items of an index. blocked: bool[N], items nobody gets. threads: 0 for all cores.
    """

    def __init__(self, engine: AbstractEngine, blocked: Bool[np.ndarray, "n"], threads: int) -> None:
        open_items = len(blocked) - int(blocked.sum())
        self.engine = engine if open_items >= _OPEN_SHARE * len(blocked) else engine.over(engine.items.without(blocked))
        self.pilot = self.engine.over(self.engine.items.every(_STRIDE))
        self.threads, self._open = threads, open_items
        self._closed = blocked if open_items < len(blocked) else blocked[:0]

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
        with self.engine.one_thread():
            for count in np.unique(heads[heads > 0]) if self._open else ():
                members = np.flatnonzero(heads == count)
                over_chunks(self._search_part, len(members), self.threads, members, int(count), (interests, valid, seen), pools)
        return pools

    def _search_part(self, start: int, stop: int, members: Int64[np.ndarray, "g"], heads: int, batch: Batch, pools: Pools) -> None:
        n = min(pools.rows.shape[1], self._open)
        size = self._users(heads, n)
        self.engine.one_thread_here()
        for first in range(start, stop, size):
            self._search_group(members[first : min(first + size, stop)], heads, n, batch, pools)

    def _users(self, heads: int, n: int) -> int:
        """Users of a group: enough to fill the product, and no more candidates than the memory set aside for them."""
        room = (self.engine.block_mb << 20) * _BLOCKS_OF_CANDIDATES // (_BYTES_A_CANDIDATE * _capacity(n))
        return max(1, min(self.engine.columns // heads, room))

    def _search_group(
        self, members: Int64[np.ndarray, "u"], heads: int, n: int, batch: Batch, pools: Pools, *, guided: bool = True
    ) -> None:
        interests, valid, seen = batch
        lanes = -(-len(members) // self.engine.lanes(heads)) * self.engine.lanes(heads)
        shape = (heads, lanes, self.engine.lowered.width)
        unit, bits, summing = self.engine.items.unit, self.engine.bits, self.engine.summing
        lowered = LoweredUsers.of(members, interests, valid, shape, unit, bits=bits, summing=summing)
        users = (members, interests, valid, *seen_sets(members, seen.offsets, seen.items))
        guesses = self._guesses(lowered, n, users) if guided else np.full(len(members), -np.inf)
        group, catalog = self._offered(self.engine, lowered, n, users, guesses)
        proven = finish(n, group, catalog, users, self.engine.rounding, guesses, (pools.rows, pools.scores, pools.interest))
        if not proven.all():
            self._search_group(members[~proven], heads, n, batch, pools, guided=False)

    def _guesses(self, lowered: LoweredUsers, n: int, users: Arrays) -> Float64[np.ndarray, "u"]:
        """For each user a score that n items reach in all likelihood; -inf where the pilot is too small to say."""
        asked = _asked_of_pilot(n)
        nothing = np.full(len(lowered.limits), -np.inf)
        if len(self.pilot.items) < asked * _ITEMS_ASKED:
            return nothing
        group, catalog = self._offered(self.pilot, lowered, asked, users, nothing)
        settle_all(asked, group, catalog, users, self.pilot.rounding)
        return group[3]

    def _offered(
        self, engine: AbstractEngine, lowered: LoweredUsers, n: int, users: Arrays, floors: Float64[np.ndarray, "u"]
    ) -> tuple[Arrays, Arrays]:
        """The candidates among an engine's items, and the catalog they stand for."""
        count, capacity = len(lowered.limits), _capacity(n)
        positions, values = np.empty((count, capacity), np.int32), np.empty((count, capacity))
        cuts = engine.cuts(lowered.heads.shape[1])
        group = (positions, values, np.zeros((count, 3), np.int64), floors.copy(), lowered.limits, cuts)
        items = engine.items
        catalog = (items.vectors, items.order, items.norms, engine.lowered.residuals, self._closed)
        engine.offer(lowered, n, group, catalog, users)
        return group, catalog


def _padded_heads(counts: Int64[np.ndarray, "b"]) -> Int64[np.ndarray, "b"]:
    """Interests a user is searched with: 0, 1, 2 or a multiple of 4, so that users of like counts share a product."""
    return np.where(counts <= 2, counts, -(-counts // 4) * 4)


def _capacity(n: int) -> int:
    """Candidates a user may have: half of what lies beyond n is for those that only the error bound keeps."""
    return 2 * n + 256


def _asked_of_pilot(n: int) -> int:
    """Which of the pilot's best has at least n items above it: four standard deviations past the expected number."""
    expected = n / _STRIDE
    return math.ceil(expected + 4 * math.sqrt(expected) + 2)
