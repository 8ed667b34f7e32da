"""Lists from rows of tables, the ranks of targets in them, and weights of users: compiled, without the GIL."""

import numpy as np
from numba import njit

from retrieval.index.kernels import table_size

Array = np.ndarray
_HASH = np.uint64(0x9E3779B97F4A7C15)


@njit(cache=True, nogil=True, inline="always")
def _slot(key: int, mask: int) -> np.int64:
    return np.int64((np.uint64(key) * _HASH) >> np.uint64(32)) & mask


@njit(cache=True, nogil=True)
def fill_table(keys: Array, table: Array, places: Array) -> int:
    """Put distinct int64 keys with their positions into a hash table of a power-of-two size; -1 in `places` is empty.

    Returns the position of the first key that was there before, or -1.
    """
    mask = table.shape[0] - 1
    for place in range(keys.shape[0]):
        slot = _slot(keys[place], mask)
        while places[slot] >= 0:
            if table[slot] == keys[place]:
                return place
            slot = (slot + 1) & mask
        table[slot], places[slot] = keys[place], place
    return -1


@njit(cache=True, nogil=True)
def look_up(start: int, stop: int, wanted: Array, table: Array, places: Array, out: Array) -> None:
    """The positions of wanted[start:stop] in what `fill_table` filled, -1 where they are not there."""
    mask = table.shape[0] - 1
    for i in range(start, stop):
        slot = _slot(wanted[i], mask)
        while places[slot] >= 0 and table[slot] != wanted[i]:
            slot = (slot + 1) & mask
        out[i] = places[slot]


@njit(cache=True, nogil=True)
def encode_new(start: int, wanted: Array, table: Array, places: Array, count: int, out: Array) -> tuple[int, int]:
    """As `look_up` from `start` on, but keys that are not there get the next codes from `count` on.

    Stops before the table is more than half full. Returns where it stopped, and the next code.
    """
    mask = table.shape[0] - 1
    for i in range(start, wanted.shape[0]):
        slot = _slot(wanted[i], mask)
        while places[slot] >= 0 and table[slot] != wanted[i]:
            slot = (slot + 1) & mask
        if places[slot] < 0:
            if 2 * count > mask:
                return i, count
            table[slot], places[slot] = wanted[i], count
            count += 1
        out[i] = places[slot]
    return wanted.shape[0], count


@njit(cache=True, nogil=True)
def find_hits(start: int, stop: int, lists: Array, truth: tuple[Array, Array], ranks: Array, repeated: Array) -> None:
    """The rank (from 1) of every target in its user's list, 0 where it is not there; who has an item twice in the list.

    truth: offsets int64[U+1] and codes int32[T] of the targets, distinct within a user; ranks int32[T]; repeated bool[U].
    """
    offsets, targets = truth
    width = table_size(lists.shape[1])
    table, places = np.empty(width, np.int32), np.empty(width, np.int32)
    for user in range(start, stop):
        places[:] = -1
        for place in range(lists.shape[1]):
            code = lists[user, place]
            if code < 0:
                continue
            slot = _slot(code, width - 1)
            while places[slot] >= 0 and table[slot] != code:
                slot = (slot + 1) & (width - 1)
            if places[slot] >= 0:
                repeated[user] = True
            else:
                table[slot], places[slot] = code, place
        for target in range(offsets[user], offsets[user + 1]):
            slot = _slot(targets[target], width - 1)
            while places[slot] >= 0 and table[slot] != targets[target]:
                slot = (slot + 1) & (width - 1)
            ranks[target] = places[slot] + 1


@njit(cache=True, nogil=True)
def place_rows(runs: tuple[Array, Array], ranks: Array, codes: Array, interests: Array, items: Array, origin: Array) -> tuple[int, int]:
    """Write codes to items int32[U, C] at (user, rank - 1), interests to origin where that has columns; ranks beyond C are skipped.

    runs: users and lengths of rows that lie side by side. Returns the user and rank that were taken before, or -1 and 0.
    """
    depth, named, row = items.shape[1], origin.shape[1] > 0, 0
    for run in range(runs[0].shape[0]):
        user = runs[0][run]
        for _ in range(runs[1][run]):
            rank = ranks[row]
            if rank <= depth:
                if items[user, rank - 1] >= 0:
                    return user, rank
                items[user, rank - 1] = codes[row]
                if named:
                    origin[user, rank - 1] = min(max(interests[row], -1), 32_767)
            row += 1
    return -1, 0


@njit(cache=True, nogil=True)
def draw_weights(start: int, stop: int, first_user: int, seed: int, table: Array, out: Array) -> None:
    """Fill rows start..stop of out float32[R, B]: how often each resample draws each user, from table uint8[65536].

    A function of seed, resample and the user's position alone, so that blocks may be of any size: splitmix64 of their
    number gives four weights at once.
    """
    for resample in range(start, stop):
        key = np.uint64(seed) + np.uint64(resample) * np.uint64(0xD1342543DE82EF95)
        key = (key ^ (key >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
        value = np.uint64(0)
        for user in range(first_user, first_user + out.shape[1]):
            lane = user & 3
            if lane == 0 or user == first_user:
                value = key + np.uint64(user >> 2) * np.uint64(0x9E3779B97F4A7C15)
                value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
                value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
                value = value ^ (value >> np.uint64(31))
            out[resample, user - first_user] = table[(value >> np.uint64(16 * lane)) & np.uint64(0xFFFF)]
