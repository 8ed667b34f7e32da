"""Compiled loops over events and ids."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Int64s = NDArray[np.int64]
Int32s = NDArray[np.int32]
Mask = NDArray[np.bool_]

_SMALL = 24
"""Below this, insertion sort and pairwise comparison beat anything with an allocation."""


@njit(cache=True, nogil=True)
def _slot_of(key: int, slots: Int32s, keys: Int64s) -> int:
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    slot = np.int64((mixed ^ (mixed >> np.uint64(32))) & np.uint64(len(slots) - 1))
    while slots[slot] >= 0 and keys[slots[slot]] != key:
        slot = (slot + 1) & (len(slots) - 1)
    return slot


@njit(cache=True, nogil=True)
def insert_keys(values: Int64s, start: int, codes: Int32s, keys: Int64s, slots: Int32s, used: int) -> tuple[int, int]:
    """Codes for values[start:], until all are done or `keys` is full; returns (next value, keys used)."""
    for place in range(start, len(values)):
        slot = _slot_of(values[place], slots, keys)
        if slots[slot] < 0:
            if used == len(keys):
                return place, used
            keys[used] = values[place]
            slots[slot] = used
            used += 1
        codes[place] = slots[slot]
    return len(values), used


@njit(cache=True, nogil=True)
def reinsert_keys(keys: Int64s, slots: Int32s, used: int) -> None:
    """Fill empty `slots` with the first `used` keys."""
    for code in range(used):
        slots[_slot_of(keys[code], slots, keys)] = code


@njit(cache=True, nogil=True)
def group_by_user(users: Int32s, offsets: Int64s, places: Any) -> None:
    """Counting sort: fill `offsets` [U+1] and `places` [E], input positions user by user, in input order."""
    for user in users:
        offsets[user + 1] += 1
    for user in range(1, len(offsets)):
        offsets[user] += offsets[user - 1]
    free = offsets[:-1].copy()
    for place in range(len(users)):
        user = users[place]
        places[free[user]] = place
        free[user] += 1


@njit(cache=True, nogil=True)
def sort_each_user(offsets: Int64s, times: Int64s, order: Int64s, places: Any) -> None:
    """Sort every user's (times, order, places) by (time, order), stable; `order` [0] stands for no order."""
    for user in range(len(offsets) - 1):
        start, end = offsets[user], offsets[user + 1]
        if not _is_sorted(times, order, start, end):
            if end - start <= _SMALL:
                _insertion_sort(times, order, places, start, end)
            else:
                _merge_sort(times, order, places, start, end)


@njit(cache=True, nogil=True)
def _is_sorted(times: Int64s, order: Int64s, start: int, end: int) -> bool:
    for place in range(start + 1, end):
        if times[place] < times[place - 1]:
            return False
        if len(order) > 0 and times[place] == times[place - 1] and order[place] < order[place - 1]:
            return False
    return True


@njit(cache=True, nogil=True)
def _insertion_sort(times: Int64s, order: Int64s, places: Any, start: int, end: int) -> None:
    for place in range(start + 1, end):
        time, row = times[place], places[place]
        step = order[place] if len(order) > 0 else 0
        free = place
        while free > start and (times[free - 1] > time or (len(order) > 0 and times[free - 1] == time and order[free - 1] > step)):
            times[free], places[free] = times[free - 1], places[free - 1]
            if len(order) > 0:
                order[free] = order[free - 1]
            free -= 1
        times[free], places[free] = time, row
        if len(order) > 0:
            order[free] = step


@njit(cache=True, nogil=True)
def _merge_sort(times: Int64s, order: Int64s, places: Any, start: int, end: int) -> None:
    best = stable_order(times[start:end], order[start:end])
    _permute(times, best, start)
    _permute(places, best, start)
    if len(order) > 0:
        _permute(order, best, start)


@njit(cache=True, nogil=True)
def _permute(values: Any, best: Int64s, start: int) -> None:
    old = values[start : start + len(best)].copy()
    for place in range(len(best)):
        values[start + place] = old[best[place]]


@njit(cache=True, nogil=True)
def stable_order(first: Int64s, second: Int64s) -> Int64s:
    """The positions that sort by (first, second), stable, int64 [n]; `second` may be of length 0.

    A bottom-up merge sort: numpy's takes compiled code ten times as long to build.
    """
    size = len(first)
    source, target = np.arange(size), np.empty(size, dtype=np.int64)
    width = 1
    while width < size:
        for start in range(0, size, 2 * width):
            _merge(first, second, source, target, start, min(start + width, size), min(start + 2 * width, size))
        source, target = target, source
        width *= 2
    return source


@njit(cache=True, nogil=True)
def _merge(first: Int64s, second: Int64s, source: Int64s, target: Int64s, start: int, middle: int, end: int) -> None:
    left, right = start, middle
    for place in range(start, end):
        take_left = right >= end
        if left < middle and not take_left:
            one, other = source[left], source[right]
            take_left = first[one] < first[other] or (first[one] == first[other] and (len(second) == 0 or second[one] <= second[other]))
        if take_left:
            target[place] = source[left]
            left += 1
        else:
            target[place] = source[right]
            right += 1


@njit(cache=True, nogil=True)
def mark_duplicates(offsets: Int64s, times: Int64s, order: Int64s, items: Int32s, extra: Int64s, keep: Mask) -> int:
    """Set `keep` False at every event that equals an earlier one of its user in all columns; returns how many.

    Events are sorted by (time, order); `order` and `extra` (kind and weight in one number) may be of length 0.
    """
    found = 0
    for user in range(len(offsets) - 1):
        start, end = offsets[user], offsets[user + 1]
        first = start
        for place in range(start + 1, end + 1):
            same = place < end and times[place] == times[first] and (len(order) == 0 or order[place] == order[first])
            if not same:
                if place - first > 1:
                    found += _mark_run(items, extra, keep, first, place)
                first = place
    return found


@njit(cache=True, nogil=True)
def _mark_run(items: Int32s, extra: Int64s, keep: Mask, first: int, end: int) -> int:
    # A stable sort by (item, extra) puts equal events side by side, the earliest of them in front.
    best = stable_order(items[first:end].astype(np.int64), extra[first:end])
    found = 0
    for place in range(1, len(best)):
        one, other = first + best[place - 1], first + best[place]
        if items[one] == items[other] and (len(extra) == 0 or extra[one] == extra[other]):
            keep[other] = False
            found += 1
    return found


@njit(cache=True, nogil=True)
def keep_frequent(offsets: Int64s, items: Int32s, keep: Mask, minimum: tuple[int, int], n_items: int, until_stable: bool) -> int:
    """Set `keep` False where the user or the item has fewer kept events than `minimum` (user, item); returns how many.

    Users and items are counted on the same events, then both are filtered; until nothing changes, or once.
    """
    removed, changed = 0, True
    while changed:
        item_events = np.zeros(n_items, dtype=np.int64)
        for place in range(len(items)):
            item_events[items[place]] += keep[place]
        changed = False
        for user in range(len(offsets) - 1):
            start, end = offsets[user], offsets[user + 1]
            user_events = 0
            for place in range(start, end):
                user_events += keep[place]
            for place in range(start, end):
                if keep[place] and (user_events < minimum[0] or item_events[items[place]] < minimum[1]):
                    keep[place] = False
                    removed += 1
                    changed = until_stable
    return removed


@njit(cache=True, nogil=True)
def kept_per_user(offsets: Int64s, keep: Mask) -> Int64s:
    """Kept events of every user, int64 [U]."""
    counts = np.zeros(len(offsets) - 1, dtype=np.int64)
    for user in range(len(counts)):
        for place in range(offsets[user], offsets[user + 1]):
            counts[user] += keep[place]
    return counts


@njit(cache=True, nogil=True)
def hash_texts(offsets: Int64s, data: Any, found: Any) -> None:
    """FNV-1a of the bytes data[offsets[i]:offsets[i+1]] into `found` uint64 [R], mixed so that every bit counts in a remainder."""
    for row in range(len(found)):
        value = np.uint64(0xCBF29CE484222325)
        for place in range(offsets[row], offsets[row + 1]):
            value = (value ^ np.uint64(data[place])) * np.uint64(0x100000001B3)
        found[row] = value ^ (value >> np.uint64(32))
