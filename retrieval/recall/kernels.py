"""Merging, filtering and re-scoring, one user at a time: compiled, without the GIL, one implementation."""

import numpy as np
from numba import njit

from retrieval.index.kernels import best_interest, drain, insert, replace_root, sort_pool, table_size

Array = np.ndarray
_EMPTY = -1
_NO_ROW = np.iinfo(np.int64).max


@njit(cache=True, nogil=True)
def merge_lists(hit_rows: Array, hit_scores: Array, queries: Array, taken: Array, blocked: Array, rows: Array) -> tuple[int, float]:
    """Merge the sorted hits of a user's interests into distinct rows, best index score first.

    queries int64[K] says which hits belong to an interest, -1 for none. taken is a hash set of rows to leave out.
    Stops when `rows` is full. Returns how many rows were found and the largest index score that anything left out can
    have: -inf when every item of the catalog was looked at.
    """
    heads = np.zeros(queries.shape[0], np.int64)
    width, found = hit_rows.shape[1], 0
    complete = width >= blocked.shape[0]
    while found < rows.shape[0]:
        best, score = -1, np.float32(-np.inf)
        for interest in range(queries.shape[0]):
            query, head = queries[interest], heads[interest]
            if query >= 0 and head < width and hit_rows[query, head] >= 0 and hit_scores[query, head] > score:
                best, score = interest, hit_scores[query, head]
        if best < 0:
            break
        row = hit_rows[queries[best], heads[best]]
        heads[best] += 1
        if not blocked[row] and insert(taken, row):
            rows[found] = row
            found += 1
    bound = -np.inf
    for interest in range(queries.shape[0]):
        query, head = queries[interest], heads[interest]
        if query < 0:
            continue
        if head < width and hit_rows[query, head] >= 0:
            bound = max(bound, hit_scores[query, head])
        elif not complete or head < width:
            bound = max(bound, hit_scores[query, head - 1]) if head > 0 and head == width else np.inf
    return found, bound


@njit(cache=True, nogil=True)
def merge_users(
    start: int,
    stop: int,
    members: Array,
    hits: tuple[Array, Array, Array],
    batch: tuple[Array, Array, Array, Array],
    catalog: tuple[Array, Array],
    keep: int,
    slack: Array,
    out: tuple[Array, Array, Array],
    settled: Array,
) -> None:
    """Fill the pools of users members[start:stop].

    hits: rows int64[Q, m], scores float32[Q, m], queries int64[G, K] (-1: not searched). batch: interests
    float64[B, K, D] with float32 values, valid, seen offsets, seen items. catalog: vectors float32[N, D], blocked
    bool[N]. keep: rows re-scored a user. slack float64[G]: how far an index score may lie below the true one; +inf for
    an index that promises nothing. settled bool[G]: whether the pool is full and nothing left out can belong in it.
    """
    hit_rows, hit_scores, queries = hits
    interests, valid, offsets, seen = batch
    vectors, blocked = catalog
    size = out[0].shape[1]
    rows, scores, winners = np.empty(keep, np.int64), np.empty(keep, np.float32), np.empty(keep, np.int32)
    longest = 0
    for member in members[start:stop]:
        longest = max(longest, offsets[member + 1] - offsets[member])
    table = np.empty(table_size(longest + keep), np.int32)
    for g in range(start, stop):
        user = members[g]
        taken = table[: table_size(offsets[user + 1] - offsets[user] + keep)]
        taken[:] = _EMPTY
        for item in seen[offsets[user] : offsets[user + 1]]:
            insert(taken, item)
        found, bound = merge_lists(hit_rows, hit_scores, queries[g], taken, blocked, rows)
        for i in range(found):
            scores[i], winners[i] = best_interest(vectors[rows[i]], interests[user], valid[user])
        sort_pool(rows, scores, winners, found)
        filled = min(found, size)
        out[0][user, :filled], out[1][user, :filled], out[2][user, :filled] = rows[:filled], scores[:filled], winners[:filled]
        if bound == -np.inf:
            settled[g] = True
        elif slack[g] == np.inf:
            settled[g] = filled == size
        else:
            settled[g] = filled == size and scores[size - 1] > np.float32(bound + slack[g])


@njit(cache=True, nogil=True)
def scan_users(
    start: int,
    stop: int,
    members: Array,
    batch: tuple[Array, Array, Array, Array],
    catalog: tuple[Array, Array],
    out: tuple[Array, Array, Array],
) -> None:
    """Fill the pools of users members[start:stop] from the open rows of the catalog, without an index.

    batch: as for `merge_users`. catalog: vectors float32[N, D], open rows int64[M] ascending, the ones to look at.
    """
    interests, valid, offsets, seen = batch
    vectors, open_rows = catalog
    size = out[0].shape[1]
    left_out = np.zeros(vectors.shape[0], np.bool_)
    for user in members[start:stop]:
        had = seen[offsets[user] : offsets[user + 1]]
        for item in had:
            left_out[item] = True
        scores, rows = np.full(size, -np.inf, np.float32), np.full(size, _NO_ROW, np.int64)
        for row in open_rows:
            if not left_out[row]:
                score = best_interest(vectors[row], interests[user], valid[user])[0]
                if score > scores[0]:
                    replace_root(scores, rows, size, score, row)
        drain(scores, rows)
        for item in had:
            left_out[item] = False
        for i in range(size):
            if rows[i] != _NO_ROW:
                out[0][user, i] = rows[i]
                out[1][user, i], out[2][user, i] = best_interest(vectors[rows[i]], interests[user], valid[user])
