"""What is popular, for users of whom too little is known: behind what is known, and mixed into short histories' lists.

Its items carry interest -1 and score 0: no interest of the user speaks for them.
"""

import numpy as np
from jaxtyping import Int64
from numba import njit

from retrieval.index.kernels import contains, insert, table_size
from retrieval.index.pools import Pools, Seen
from retrieval.index.threads import over_chunks
from retrieval.recall.pools import Lists

Array = np.ndarray


def fill_up(pools: Pools, members: Int64[np.ndarray, "m"], popular: Int64[np.ndarray, "p"], seen: Seen, threads: int = 0) -> None:
    """Put what is popular, best first and without what they have seen, behind the candidates of some users, because a short
    list helps nobody.

    popular: rows that anybody may get, most popular first.
    """
    _mix(Lists(pools.rows, pools.scores, pools.interest), members, popular, seen, 0, threads)


def mix_popular(
    lists: Lists, members: Int64[np.ndarray, "m"], popular: Int64[np.ndarray, "p"], seen: Seen, share: float, threads: int = 0
) -> None:
    """Give a share of the places of some users' lists to what is popular, spread evenly; the other items move down in order.

    What a user has seen, or has in the list already, is passed over. Where one side runs out, the other takes its places.
    """
    _mix(lists, members, popular, seen, round(share * lists.rows.shape[1]), threads)


def _mix(lists: Lists, members: Array, popular: Array, seen: Seen, wanted: int, threads: int) -> None:
    arguments = (members, (lists.rows, lists.scores, lists.interest), popular, seen.offsets, seen.items, wanted)
    over_chunks(_mix_users, len(members), threads, *arguments)


@njit(cache=True, nogil=True)
def _mix_users(
    start: int, stop: int, members: Array, lists: tuple[Array, Array, Array], popular: Array, offsets: Array, seen: Array, wanted: int
) -> None:
    """Rebuild the lists of users members[start:stop], with `wanted` popular items each."""
    size = lists[0].shape[1]
    rows, scores, interest = np.empty(size, np.int64), np.empty(size, np.float32), np.empty(size, np.int32)
    for user in members[start:stop]:
        rows[:], scores[:], interest[:] = lists[0][user], lists[1][user], lists[2][user]
        own = 0
        while own < size and rows[own] >= 0:
            own += 1
        had = seen[offsets[user] : offsets[user + 1]]
        taken = np.full(table_size(had.shape[0] + own), -1, np.int32)
        for item in had:
            insert(taken, item)
        for place in range(own):
            insert(taken, rows[place])
        _rebuild(lists, user, (rows, scores, interest), own, popular, taken, wanted)


@njit(cache=True, nogil=True)
def _rebuild(
    lists: tuple[Array, Array, Array],
    user: int,
    source: tuple[Array, Array, Array],
    own: int,
    popular: Array,
    taken: Array,
    wanted: int,
) -> None:
    size, given = lists[0].shape[1], 0
    following = _next_popular(popular, 0, taken)
    for place in range(size):
        is_popular = (place + 1) * wanted // size > place * wanted // size
        if following < popular.shape[0] and (is_popular or given >= own):
            lists[0][user, place], lists[1][user, place], lists[2][user, place] = popular[following], 0.0, -1
            following = _next_popular(popular, following + 1, taken)
        elif given < own:
            lists[0][user, place], lists[1][user, place] = source[0][given], source[1][given]
            lists[2][user, place] = source[2][given]
            given += 1


@njit(cache=True, nogil=True)
def _next_popular(popular: Array, place: int, taken: Array) -> int:
    while place < popular.shape[0] and contains(taken, popular[place]):
        place += 1
    return place
