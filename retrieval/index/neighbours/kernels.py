"""Counting what goes with what, and scoring with it: compiled, without the GIL.

`sequences` is always (offsets int64[U], items int32[E], ends int64[U]): of user u the events offsets[u] to
offsets[u] + ends[u] may be read.
"""

import numpy as np
from numba import njit

from retrieval.index.kernels import contains, drain, insert, replace_root, table_size

Array = np.ndarray
_EMPTY = -1
_NO_ROW = np.iinfo(np.int64).max


@njit(cache=True, nogil=True)
def count_items(sequences: tuple[Array, Array, Array], events: Array, users: Array) -> None:
    """Add to int64[N] each: events of every item, and users who had it."""
    offsets, items, ends = sequences
    last = np.full(events.shape[0], -1, np.int64)
    for user in range(ends.shape[0]):
        for place in range(offsets[user], offsets[user] + ends[user]):
            item = items[place]
            events[item] += 1
            if last[item] != user:
                last[item] = user
                users[item] += 1


@njit(cache=True, nogil=True)
def gather_next(sequences: tuple[Array, Array, Array], first: int, starts: Array, found: Array) -> Array:
    """Collect, for the items from `first` on, the item of every following event: found[starts[i]:stops[i]], stops returned."""
    offsets, items, ends = sequences
    fill, size = starts.copy(), starts.shape[0]
    for user in range(ends.shape[0]):
        for place in range(offsets[user], offsets[user] + ends[user] - 1):
            item = items[place] - first
            if 0 <= item < size:
                found[fill[item]] = items[place + 1]
                fill[item] += 1
    return fill


@njit(cache=True, nogil=True)
def gather_users(sequences: tuple[Array, Array, Array], first: int, starts: Array, found: Array) -> Array:
    """Collect, for the items from `first` on, who had them, each user once: found[starts[i]:stops[i]], stops returned."""
    offsets, items, ends = sequences
    fill, size = starts.copy(), starts.shape[0]
    for user in range(ends.shape[0]):
        for place in range(offsets[user], offsets[user] + ends[user]):
            item = items[place] - first
            if 0 <= item < size and (fill[item] == starts[item] or found[fill[item] - 1] != user):
                found[fill[item]] = user
                fill[item] += 1
    return fill


@njit(cache=True, nogil=True)
def weigh_transitions(start: int, stop: int, followers: tuple[Array, Array, Array], shares: Array, out: tuple[Array, Array]) -> None:
    """Fill rows start..stop of out (rows int32[n, k], weights float32[n, k]) with the k likeliest next items of each item.

    followers: starts and stops int64[n] of each item's part of the third. shares float64[N]: of all events.
    """
    starts, stops, following = followers
    counts, touched = np.zeros(shares.shape[0], np.float64), np.empty(shares.shape[0], np.int32)
    for item in range(start, stop):
        size = 0
        for place in range(starts[item], stops[item]):
            row = following[place]
            if counts[row] == 0.0:
                touched[size] = row
                size += 1
            counts[row] += 1.0
        total = stops[item] - starts[item] + 1.0
        for place in range(size):
            counts[touched[place]] = (counts[touched[place]] + shares[touched[place]]) / total
        _keep_heaviest(counts, touched, size, out[0][item], out[1][item])


@njit(cache=True, nogil=True)
def weigh_co_occurrences(
    start: int,
    stop: int,
    owners: tuple[Array, Array, Array],
    sequences: tuple[Array, Array, Array],
    users: tuple[Array, int, float],
    out: tuple[Array, Array],
) -> None:
    """Fill rows start..stop of out as `weigh_transitions` does, with the k items of the highest shrunk cosine.

    owners: starts and stops int64[n] of each item's users in the third. users: how many had each item int64[N], the
    first item's row, and the shrinkage.
    """
    starts, stops, had = owners
    offsets, items, ends = sequences
    n_users, first, shrinkage = users
    counts, touched = np.zeros(n_users.shape[0], np.float64), np.empty(n_users.shape[0], np.int32)
    last = np.full(n_users.shape[0], -1, np.int64)
    for item in range(start, stop):
        size = 0
        for place in range(starts[item], stops[item]):
            user = had[place]
            for event in range(offsets[user], offsets[user] + ends[user]):
                row = items[event]
                if last[row] == place or row == first + item:
                    continue
                last[row] = place
                if counts[row] == 0.0:
                    touched[size] = row
                    size += 1
                counts[row] += 1.0
        own = np.float64(n_users[first + item])
        for place in range(size):
            row = touched[place]
            counts[row] /= np.sqrt(own * n_users[row]) + shrinkage
        _keep_heaviest(counts, touched, size, out[0][item], out[1][item])


@njit(cache=True, nogil=True)
def _keep_heaviest(weights: Array, touched: Array, size: int, rows: Array, kept: Array) -> None:
    """The heaviest of touched[:size] by (-weight, row) into rows and kept; weights of all touched go back to 0."""
    best, places = np.full(rows.shape[0], -np.inf, np.float32), np.full(rows.shape[0], _NO_ROW, np.int64)
    for place in range(size):
        row = touched[place]
        weight = np.float32(weights[row])
        weights[row] = 0.0
        if weight > best[0] or (weight == best[0] and row < places[0]):
            replace_root(best, places, rows.shape[0], weight, row)
    drain(best, places)
    for place in range(min(size, rows.shape[0])):
        rows[place], kept[place] = places[place], best[place]


@njit(cache=True, nogil=True)
def score_users(
    start: int,
    stop: int,
    histories: tuple[Array, Array],
    recent: int,
    neighbours: tuple[Array, Array, Array],
    left_out: tuple[Array, Array, Array],
    out: tuple[Array, Array, Array],
) -> None:
    """Fill the pools of users start..stop with what the distinct items of their last `recent` events speak for, weights added.

    histories, and seen in left_out: offsets int64[B+1] and items. left_out: blocked bool[N], seen offsets, seen items.
    """
    offsets, items = histories
    blocked, seen_offsets, seen = left_out
    size = out[0].shape[1]
    scores, touched = np.zeros(blocked.shape[0], np.float64), np.empty(blocked.shape[0], np.int32)
    for user in range(start, stop):
        begin = max(offsets[user], offsets[user + 1] - recent)
        found = _add_up(items[begin : offsets[user + 1]], neighbours, scores, touched)
        had = seen[seen_offsets[user] : seen_offsets[user + 1]]
        table = np.full(table_size(had.shape[0]), _EMPTY, np.int32)
        for row in had:
            insert(table, row)
        best, rows = np.full(size, -np.inf, np.float32), np.full(size, _NO_ROW, np.int64)
        for place in range(found):
            row = touched[place]
            score = np.float32(scores[row])
            scores[row] = 0.0
            better = score > best[0] or (score == best[0] and row < rows[0])
            if better and not blocked[row] and not contains(table, row):
                replace_root(best, rows, size, score, row)
        drain(best, rows)
        for place in range(size):
            if rows[place] != _NO_ROW:
                out[0][user, place], out[1][user, place], out[2][user, place] = rows[place], best[place], 0


@njit(cache=True, nogil=True)
def _add_up(events: Array, neighbours: tuple[Array, Array, Array], scores: Array, touched: Array) -> int:
    """Add the neighbours' weights of distinct events to scores; how many rows were touched."""
    offsets, rows, weights = neighbours
    table = np.full(table_size(events.shape[0]), _EMPTY, np.int32)
    found = 0
    for item in events[::-1]:
        if not insert(table, item):
            continue
        for place in range(offsets[item], offsets[item + 1]):
            row = rows[place]
            if scores[row] == 0.0:
                touched[found] = row
                found += 1
            scores[row] += weights[place]
    return found
