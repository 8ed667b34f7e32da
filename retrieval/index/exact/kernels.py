"""Candidates of a group of users: kept while their bound allows it, re-scored, sorted. Compiled, without the GIL.

Arguments that travel together:
    group: positions int32[U, C], values float64[U, C] (products, or scores in the units of products), sizes int64[U, 3]
        (how many are kept, how many of these were filtered, how many of these hold scores), floors float64[U], limits
        float64[U, 4] (factors of the norm and of the residual, the absolute error, the unit), cuts [lanes] (what a
        product has to reach; float32, or int16 for the bits of bfloat16).
    catalog: vectors float32[N, D], order int32[M] (position -> row), norms and residuals float64[blocks], never
        ascending, blocked bool[N] or bool[0] for none.
    users: members int64[U] (rows of the next two), interests float64[B, K, D], valid bool[B, K], hash sets of what was
        seen, one after the other, and where they end int64[U + 1].
    rounding: the relative error of a product that was rounded when it was stored.
"""

import numpy as np
from numba import njit

from retrieval.index.exact.intrinsics import SEGMENT, lowest_bit, prefetch, reached
from retrieval.index.kernels import best_interest, contains, insert, is_worse, replace_root, sort_pool, table_size

Array = np.ndarray
# Positions that share one bound.
BLOCK = 1024
_NO_ROW = np.iinfo(np.int64).max
_LOWEST_BITS = -32768
# Items that are asked for before they are scored, and the float32 numbers of a cache line.
_AHEAD, _LINE = 12, 16


@njit(cache=True, nogil=True)
def seen_sets(members: Array, offsets: Array, items: Array) -> tuple[Array, Array]:
    """A hash set of what each member has seen, one after the other, and where they end int64[U + 1]."""
    ends = np.zeros(members.shape[0] + 1, np.int64)
    for user in range(members.shape[0]):
        count = offsets[members[user] + 1] - offsets[members[user]]
        ends[user + 1] = ends[user] + (table_size(count) if count > 0 else 0)
    table = np.full(ends[-1], -1, np.int32)
    for user in range(members.shape[0]):
        for item in items[offsets[members[user]] : offsets[members[user] + 1]]:
            insert(table[ends[user] : ends[user + 1]], item)
    return table, ends


@njit(cache=True, nogil=True, inline="always")
def _error(limits: Array, catalog: tuple[Array, ...], position: int) -> float:
    block = position // BLOCK
    return float(limits[0] * catalog[2][block] + limits[1] * catalog[3][block] + limits[2])


@njit(cache=True, nogil=True)
def _sortable_below(value: np.float32) -> np.int32:
    """The sortable bits of a bfloat16 number that is not above the value."""
    top = np.float32(value).view(np.int32) >> np.int32(16)
    if value == -np.inf:
        return np.int32(_LOWEST_BITS)
    # Cutting bits off rounds towards zero, which is down for positive numbers only.
    return top if top >= 0 else (top ^ np.int32(0x7FFF)) - np.int32(1)


@njit(cache=True, nogil=True)
def set_cut(user: int, position: int, group: tuple[Array, ...], catalog: tuple[Array, ...], rounding: float, bits: bool) -> None:
    """What a product from `position` on has to reach so that its item may belong to the result, rounded down."""
    floor, cuts = group[3][user], group[5]
    cut = floor - _error(group[4][user], catalog, position)
    cut = cut / (1.0 + rounding) if cut >= 0.0 else cut / (1.0 - rounding)
    lowered = np.float32(cut - abs(cut) * 2.0**-22 - 2.0**-126)
    cuts[user] = _sortable_below(lowered) if bits else lowered


@njit(cache=True, nogil=True)
def _nth_largest(values: Array, size: int, n: int) -> float:
    """The n-th largest of values[:size], which are reordered (Hoare's selection)."""
    left, right, wanted = 0, size - 1, n - 1
    while left < right:
        pivot = values[(left + right) // 2]
        i, j = left, right
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if wanted <= j:
            right = j
        elif wanted >= i:
            left = i
        else:
            break
    return float(values[wanted])


@njit(cache=True, nogil=True)
def _filter(user: int, group: tuple[Array, ...], catalog: tuple[Array, ...], users: tuple[Array, ...]) -> None:
    """Drop the unfiltered candidates that are blocked or seen."""
    positions, values, sizes = group[0][user], group[1][user], group[2][user]
    seen, any_blocked = users[3][users[4][user] : users[4][user + 1]], catalog[4].shape[0] > 0
    kept = sizes[0] if seen.shape[0] == 0 and not any_blocked else sizes[1]
    for i in range(kept, sizes[0]):
        row = catalog[1][positions[i]]
        if not (any_blocked and catalog[4][row]) and not contains(seen, row):
            positions[kept], values[kept] = positions[i], values[i]
            kept += 1
    sizes[0], sizes[1] = kept, kept


@njit(cache=True, nogil=True)
def _certain(user: int, n: int, group: tuple[Array, ...], catalog: tuple[Array, ...], rounding: float, scratch: Array) -> float:
    """What n candidates certainly score; -inf where there are fewer."""
    positions, values, sizes, limits = group[0][user], group[1][user], group[2][user], group[4][user]
    if sizes[0] < n:
        return -np.inf
    for i in range(sizes[0]):
        error = 0.0 if i < sizes[2] else rounding * abs(values[i]) + _error(limits, catalog, positions[i])
        scratch[i] = values[i] - error
    return _nth_largest(scratch, sizes[0], n)


@njit(cache=True, nogil=True)
def _drop_low(user: int, group: tuple[Array, ...], catalog: tuple[Array, ...], rounding: float) -> None:
    """Drop the candidates that certainly score below the floor."""
    positions, values, sizes, limits = group[0][user], group[1][user], group[2][user], group[4][user]
    floor, kept, scored = group[3][user], 0, 0
    for i in range(sizes[0]):
        error = 0.0 if i < sizes[2] else rounding * abs(values[i]) + _error(limits, catalog, positions[i])
        if values[i] + error >= floor:
            positions[kept], values[kept] = positions[i], values[i]
            kept += 1
            scored += i < sizes[2]
    sizes[0], sizes[1], sizes[2] = kept, kept, scored


@njit(cache=True, nogil=True)
def _resolve(user: int, n: int, group: tuple[Array, ...], catalog: tuple[Array, ...], users: tuple[Array, ...]) -> None:
    """Score every candidate and keep the best n; their worst score is the floor."""
    positions, values, sizes = group[0][user], group[1][user], group[2][user]
    member, unit = users[0][user], group[4][user, 3]
    scores, rows = np.full(n, -np.inf), np.full(n, _NO_ROW, np.int64)
    for i in range(sizes[0]):
        row = catalog[1][positions[i]]
        if i >= sizes[2]:
            values[i] = best_interest(catalog[0][row], users[1][member], users[2][member])[0] / unit
        if is_worse(scores[0], rows[0], values[i], row):
            replace_root(scores, rows, n, values[i], row)
    kept = 0
    for i in range(sizes[0]):
        if not is_worse(values[i], catalog[1][positions[i]], scores[0], rows[0]):
            positions[kept], values[kept] = positions[i], values[i]
            kept += 1
    sizes[0], sizes[1], sizes[2] = kept, kept, kept
    group[3][user] = max(group[3][user], scores[0])


@njit(cache=True, nogil=True)
def settle(
    user: int, n: int, group: tuple[Array, ...], catalog: tuple[Array, ...], users: tuple[Array, ...], rounding: float, scratch: Array
) -> None:
    """Make room among a user's candidates without losing any that may belong to the result."""
    _filter(user, group, catalog, users)
    group[3][user] = max(group[3][user], _certain(user, n, group, catalog, rounding, scratch))
    _drop_low(user, group, catalog, rounding)
    capacity = group[0].shape[1]
    if group[2][user, 0] > n + (capacity - n) // 2:
        _resolve(user, n, group, catalog, users)


@njit(cache=True, nogil=True)
def set_cuts(position: int, group: tuple[Array, ...], catalog: tuple[Array, ...], rounding: float, bits: bool) -> tuple[bool, bool]:
    """The cuts of all users from `position` on; whether one is negative, and whether any item from there on can reach one."""
    negative, alive = False, False
    block = position // BLOCK
    for user in range(group[0].shape[0]):
        set_cut(user, position, group, catalog, rounding, bits)
        negative |= group[5][user] < 0
        limits = group[4][user]
        highest = limits[1] * (catalog[2][block] + catalog[3][block]) + _error(limits, catalog, position)
        alive |= highest >= group[3][user]
    return negative, alive


@njit(cache=True, nogil=True)
def make_sortable(block: Array) -> None:
    """Change the bits of bfloat16 so that they order as the numbers do; positive ones stay as they are."""
    for item in range(block.shape[0]):
        line = block[item]
        for column in range(line.shape[0]):
            line[column] ^= (line[column] >> np.int16(15)) & np.int16(0x7FFF)


@njit(cache=True, nogil=True)
def _from_sortable(bits: np.int32) -> np.float32:
    whole = np.int32((bits if bits >= 0 else bits ^ np.int32(0x7FFF)) << np.int32(16))
    return whole.view(np.float32)


@njit(cache=True, nogil=True)
def scan(
    block: Array,
    first: int,
    heads: int,
    n: int,
    group: tuple[Array, ...],
    catalog: tuple[Array, ...],
    users: tuple[Array, ...],
    rounding: float,
    bits: bool,
) -> None:
    """Offer the products of positions first.. with every user, [items, heads x lanes], lanes a multiple of 32.

    The largest over the heads counts. With `bits` the products are sortable bits of bfloat16.
    """
    positions, values, sizes, cuts = group[0], group[1], group[2], group[5]
    lanes, capacity = cuts.shape[0], positions.shape[1]
    scratch = np.empty(capacity)
    for item in range(block.shape[0]):
        line = block[item]
        for segment in range(0, lanes, SEGMENT):
            mask = reached(line, segment, cuts, segment)
            for head in range(1, heads):
                mask |= reached(line, head * lanes + segment, cuts, segment)
            while mask != 0:
                user = segment + lowest_bit(mask)
                mask &= mask - np.uint32(1)
                best = line[user]
                for head in range(1, heads):
                    best = max(best, line[head * lanes + user])
                count = sizes[user, 0]
                positions[user, count] = first + item
                values[user, count] = _from_sortable(np.int32(best)) if bits else np.float32(best)
                sizes[user, 0] = count + 1
                if count + 1 == capacity:
                    settle(user, n, group, catalog, users, rounding, scratch)
                    set_cut(user, first + item, group, catalog, rounding, bits)


@njit(cache=True, nogil=True)
def take(
    hits: Array,
    products: Array,
    first: int,
    n: int,
    group: tuple[Array, ...],
    catalog: tuple[Array, ...],
    users: tuple[Array, ...],
    rounding: float,
) -> None:
    """Offer products float32[H] that reached a cut; hits int64[H, 2]: the item, counted from position `first`, and the user."""
    positions, values, sizes, cuts = group[0], group[1], group[2], group[5]
    capacity = positions.shape[1]
    scratch = np.empty(capacity)
    for hit in range(hits.shape[0]):
        user = hits[hit, 1]
        if products[hit] >= cuts[user]:
            count = sizes[user, 0]
            positions[user, count], values[user, count] = first + hits[hit, 0], products[hit]
            sizes[user, 0] = count + 1
            if count + 1 == capacity:
                settle(user, n, group, catalog, users, rounding, scratch)
                set_cut(user, first + hits[hit, 0], group, catalog, rounding, False)


@njit(cache=True, nogil=True)
def settle_all(n: int, group: tuple[Array, ...], catalog: tuple[Array, ...], users: tuple[Array, ...], rounding: float) -> None:
    """Settle every user of a group."""
    scratch = np.empty(group[0].shape[1])
    for user in range(group[0].shape[0]):
        settle(user, n, group, catalog, users, rounding, scratch)


@njit(cache=True, nogil=True, inline="always")
def _ask_for(vectors: Array, rows: Array, i: int, count: int) -> None:
    """Ask for the item that comes a few after rows[i]; before the first, for all of these."""
    for ahead in range(i + _AHEAD if i > 0 else 0, min(i + _AHEAD + 1, count)):
        for component in range(0, vectors.shape[1], _LINE):
            prefetch(vectors, rows[ahead] * vectors.shape[1] + component)


@njit(cache=True, nogil=True)
def finish(
    n: int,
    group: tuple[Array, ...],
    catalog: tuple[Array, ...],
    users: tuple[Array, ...],
    rounding: float,
    guesses: Array,
    out: tuple[Array, ...],
) -> Array:
    """Score what is kept and write each user's best n by (-score, row).

    guesses float64[U] are the floors that the search began with. bool[U] says for whom the guess is proven: -inf, or n
    candidates certainly reach it. The others' results are not to be used.
    """
    size = group[0].shape[1]
    scratch, rows, proven = np.empty(size), np.empty(size, np.int64), np.empty(group[0].shape[0], np.bool_)
    scores, winners = np.empty(size, np.float32), np.empty(size, np.int32)
    settle_all(n, group, catalog, users, rounding)
    for user in range(group[0].shape[0]):
        proven[user] = guesses[user] <= _certain(user, n, group, catalog, rounding, scratch)
        member, count = users[0][user], group[2][user, 0]
        for i in range(count):
            rows[i] = catalog[1][group[0][user, i]]
        for i in range(count):
            _ask_for(catalog[0], rows, i, count)
            scores[i], winners[i] = best_interest(catalog[0][rows[i]], users[1][member], users[2][member])
        sort_pool(rows, scores, winners, count)
        filled = min(count, n)
        out[0][member, :filled], out[1][member, :filled], out[2][member, :filled] = rows[:filled], scores[:filled], winners[:filled]
    return proven
