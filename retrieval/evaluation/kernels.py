"""Metrics of ranked lists, one user at a time: compiled, without the GIL, one implementation.

`lists` int32[U, C]: code of the item at each rank, -1 for none; codes below N are rows of the catalog. `cutoffs` int64[Q]
ascending, the last at most C. Values go to `out` float64[U, metrics * Q], cut-offs of one metric side by side, NaN where a
list has no value.
"""

import numpy as np
from numba import njit

from retrieval.index.kernels import table_size

Array = np.ndarray
_HASH = np.uint64(0x9E3779B97F4A7C15)
_LOG_2 = np.log(2.0)


@njit(cache=True, nogil=True, inline="always")
def _slot(key: int, mask: int) -> int:
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
def accuracy(start: int, stop: int, truth: tuple[Array, Array], cutoffs: Array, gains: tuple[Array, Array], out: Array) -> None:
    """Write recall, hr, precision, ndcg, ndcg_comirec, mrr and map.

    truth: offsets int64[U+1] and ranks int32[T] from `find_hits`. gains: of a hit at each rank, and of so many hits at
    the top (from 0 on).
    """
    offsets, ranks = truth
    gain_at, ideal = gains
    deepest, count = cutoffs[-1], cutoffs.shape[0]
    hits = np.zeros(deepest, np.bool_)
    for user in range(start, stop):
        targets = offsets[user + 1] - offsets[user]
        hits[:] = False
        for rank in ranks[offsets[user] : offsets[user + 1]]:
            if 0 < rank <= deepest:
                hits[rank - 1] = True
        found, first, gain, precisions, q = 0, 0, 0.0, 0.0, 0
        for place in range(deepest):
            if hits[place]:
                found += 1
                first = first or place + 1
                gain += gain_at[place]
                precisions += found / (place + 1)
            if place + 1 == cutoffs[q]:
                n, reachable = cutoffs[q], min(cutoffs[q], targets)
                out[user, q] = found / targets
                out[user, count + q] = 1.0 if found else 0.0
                out[user, 2 * count + q] = found / n
                out[user, 3 * count + q] = gain / ideal[reachable]
                out[user, 4 * count + q] = gain / ideal[found] if found else 0.0
                out[user, 5 * count + q] = 1.0 / first if found else 0.0
                out[user, 6 * count + q] = precisions / reachable
                q += 1


@njit(cache=True, nogil=True)
def alpha_ndcg(
    start: int,
    stop: int,
    truth: tuple[Array, Array, Array],
    labels: tuple[Array, Array, int],
    cutoffs: Array,
    gain_at: Array,
    kept: float,
    out: Array,
) -> None:
    """alpha-NDCG: a hit gains kept ** (earlier hits of the same label), added over its labels, discounted by its rank.

    truth: offsets, codes and ranks of the targets. labels: offsets int64[N+1], codes int32[E], how many. The ideal takes
    the target of the largest gain at every rank, the first of equals.
    """
    offsets, targets, ranks = truth
    deepest = cutoffs[-1]
    shown, at_rank = np.zeros(labels[2], np.int32), np.empty(deepest, np.int64)
    for user in range(start, stop):
        at_rank[:] = -1
        for target in range(offsets[user], offsets[user + 1]):
            if 0 < ranks[target] <= deepest:
                at_rank[ranks[target] - 1] = targets[target]
        own = targets[offsets[user] : offsets[user + 1]].copy()
        reached, best, q = 0.0, 0.0, 0
        ideal = _ideal_gains(own, labels, cutoffs, gain_at, kept, shown)
        for place in range(deepest):
            if at_rank[place] >= 0:
                reached += gain_at[place] * _show(at_rank[place], labels, kept, shown)
            if place + 1 == cutoffs[q]:
                best = ideal[q]
                out[user, q] = reached / best if best > 0.0 else np.nan
                q += 1
        _forget(own, labels, shown)


@njit(cache=True, nogil=True)
def _ideal_gains(own: Array, labels: tuple[Array, Array, int], cutoffs: Array, gain_at: Array, kept: float, shown: Array) -> Array:
    """The discounted gain of the greedy order of some targets at every cut-off; `shown` is left as it was."""
    found, total, q = np.zeros(cutoffs.shape[0], np.float64), 0.0, 0
    left = own.copy()
    for place in range(cutoffs[-1]):
        best, winner = 0.0, -1
        for i in range(left.shape[0]):
            if left[i] >= 0:
                gain = _gain(left[i], labels, kept, shown)
                if gain > best:
                    best, winner = gain, i
        if winner >= 0:
            total += gain_at[place] * _show(left[winner], labels, kept, shown)
            left[winner] = -1
        if place + 1 == cutoffs[q]:
            found[q] = total
            q += 1
        if winner < 0:
            found[q:] = total
            break
    _forget(own, labels, shown)
    return found


@njit(cache=True, nogil=True)
def _gain(code: int, labels: tuple[Array, Array, int], kept: float, shown: Array) -> float:
    total = 0.0
    if code < labels[0].shape[0] - 1:
        for label in labels[1][labels[0][code] : labels[0][code + 1]]:
            total += kept ** shown[label]
    return total


@njit(cache=True, nogil=True)
def _show(code: int, labels: tuple[Array, Array, int], kept: float, shown: Array) -> float:
    """The gain of an item, which is shown from now on."""
    gain = _gain(code, labels, kept, shown)
    if code < labels[0].shape[0] - 1:
        for label in labels[1][labels[0][code] : labels[0][code + 1]]:
            shown[label] += 1
    return gain


@njit(cache=True, nogil=True)
def _forget(codes: Array, labels: tuple[Array, Array, int], shown: Array) -> None:
    for code in codes:
        if code < labels[0].shape[0] - 1:
            for label in labels[1][labels[0][code] : labels[0][code + 1]]:
                shown[label] = 0


@njit(cache=True, nogil=True)
def variety(start: int, stop: int, lists: Array, primary: Array, count: int, cutoffs: Array, out: Array) -> None:
    """Write diversity (share of the pairs whose categories differ) and category entropy in bits.

    primary int32[N]: category of each row, -1 for none; an item without one is left out. count: of categories.
    """
    shown, q_count = np.zeros(count + 1, np.int64), cutoffs.shape[0]
    for user in range(start, stop):
        known, equal, logs, q = 0, 0, 0.0, 0
        for place in range(cutoffs[-1]):
            code = lists[user, place]
            category = primary[code] if 0 <= code < primary.shape[0] else -1
            if category >= 0:
                before = shown[category]
                equal += before
                logs += (before + 1) * np.log2(before + 1.0) - (before * np.log2(float(before)) if before else 0.0)
                shown[category] = before + 1
                known += 1
            if place + 1 == cutoffs[q]:
                out[user, q] = 1.0 - equal / (known * (known - 1) / 2) if known > 1 else np.nan
                out[user, q_count + q] = max(np.log2(float(known)) - logs / known, 0.0) if known else np.nan
                q += 1
        for code in lists[user, : cutoffs[-1]]:
            if 0 <= code < primary.shape[0] and primary[code] >= 0:
                shown[primary[code]] = 0


@njit(cache=True, nogil=True)
def popularity(start: int, stop: int, lists: Array, bits: Array, groups: Array, cutoffs: Array, out: Array) -> None:
    """Write novelty (mean bits float64[N]) and the shares of the list that are head, torso and tail (groups int8[N]: 0, 1, 2)."""
    q_count, in_group = cutoffs.shape[0], np.zeros(3, np.int64)
    for user in range(start, stop):
        known, total, q = 0, 0.0, 0
        in_group[:] = 0
        for place in range(cutoffs[-1]):
            code = lists[user, place]
            if 0 <= code < bits.shape[0]:
                known += 1
                total += bits[code]
                in_group[groups[code]] += 1
            if place + 1 == cutoffs[q]:
                out[user, q] = total / known if known else np.nan
                for group in range(3):
                    out[user, (group + 1) * q_count + q] = in_group[group] / known if known else np.nan
                q += 1


@njit(cache=True, nogil=True)
def distance(start: int, stop: int, lists: Array, vectors: Array, lengths: Array, cutoffs: Array, out: Array) -> None:
    """Intra-list distance: mean of 1 - cosine over the pairs, from the running sum of unit vectors.

    vectors float32[N, D], lengths float32[N]; a zero vector has cosine 0 with all.
    """
    total = np.zeros(vectors.shape[1], np.float64)
    for user in range(start, stop):
        known, units, q = 0, 0, 0
        total[:] = 0.0
        for place in range(cutoffs[-1]):
            code = lists[user, place]
            if 0 <= code < vectors.shape[0]:
                known += 1
                if lengths[code] > 0.0:
                    units += 1
                    scale = 1.0 / lengths[code]
                    for d in range(vectors.shape[1]):
                        total[d] += vectors[code, d] * scale
            if place + 1 == cutoffs[q]:
                cosines = ((total**2).sum() - units) / 2
                out[user, q] = 1.0 - cosines / (known * (known - 1) / 2) if known > 1 else np.nan
                q += 1


@njit(cache=True, nogil=True)
def calibration(
    start: int,
    stop: int,
    lists: Array,
    histories: tuple[Array, Array],
    labels: tuple[Array, Array, int],
    cutoffs: Array,
    smoothing: float,
    out: Array,
) -> None:
    """Divergence of the list's categories from the history's: KL in nats with a smoothed list, and Jensen-Shannon in bits.

    histories: offsets int64[U+1] and codes. An item gives each of its labels the same part of 1.
    """
    q_count, size = cutoffs.shape[0], labels[2]
    wanted, shown, touched = np.zeros(size, np.float64), np.zeros(size, np.float64), np.empty(size, np.int64)
    for user in range(start, stop):
        support, mass = 0, 0.0
        for code in histories[1][histories[0][user] : histories[0][user + 1]]:
            support, mass = _spread(code, labels, wanted, touched, support, mass)
        listed, q = 0.0, 0
        for place in range(cutoffs[-1]):
            code = lists[user, place]
            if 0 <= code < labels[0].shape[0] - 1 and labels[0][code + 1] > labels[0][code]:
                part = 1.0 / (labels[0][code + 1] - labels[0][code])
                for label in labels[1][labels[0][code] : labels[0][code + 1]]:
                    shown[label] += part
                listed += 1.0
            if place + 1 == cutoffs[q]:
                out[user, q], out[user, q_count + q] = _divergences(wanted, shown, touched[:support], mass, listed, smoothing)
                q += 1
        for code in histories[1][histories[0][user] : histories[0][user + 1]]:
            _clear(code, labels, wanted)
        for code in lists[user, : cutoffs[-1]]:
            _clear(code, labels, shown)


@njit(cache=True, nogil=True)
def _spread(code: int, labels: tuple[Array, Array, int], weights: Array, touched: Array, support: int, mass: float) -> tuple[int, float]:
    if not 0 <= code < labels[0].shape[0] - 1 or labels[0][code + 1] == labels[0][code]:
        return support, mass
    part = 1.0 / (labels[0][code + 1] - labels[0][code])
    for label in labels[1][labels[0][code] : labels[0][code + 1]]:
        if weights[label] == 0.0:
            touched[support] = label
            support += 1
        weights[label] += part
    return support, mass + 1.0


@njit(cache=True, nogil=True)
def _clear(code: int, labels: tuple[Array, Array, int], weights: Array) -> None:
    if 0 <= code < labels[0].shape[0] - 1:
        for label in labels[1][labels[0][code] : labels[0][code + 1]]:
            weights[label] = 0.0


@njit(cache=True, nogil=True)
def _divergences(wanted: Array, shown: Array, support: Array, mass: float, listed: float, smoothing: float) -> tuple[float, float]:
    """KL(wanted || smoothed shown) and the Jensen-Shannon divergence; what only the list shows adds half its share to the latter."""
    if mass == 0.0 or listed == 0.0:
        return np.nan, np.nan
    divergence, between, outside = 0.0, 0.0, 1.0
    for label in support:
        p, q = wanted[label] / mass, shown[label] / listed
        log_p = np.log(p)
        if q == 0.0:
            divergence -= p * np.log(smoothing)
            between += p
        else:
            divergence += p * (log_p - np.log((1.0 - smoothing) * q + smoothing * p))
            between += (p * log_p + q * np.log(q) - (p + q) * np.log(p + q)) / _LOG_2 + p + q
            outside -= q
    return max(divergence, 0.0), min(max(0.5 * (between + outside), 0.0), 1.0)


@njit(cache=True, nogil=True)
def expose(start: int, stop: int, lists: Array, first_user: int, cutoffs: Array, counts: Array) -> None:
    """Add the lists of users in groups start..stop to counts int32[G, Q, N]: at which cut-off each row enters, a group each.

    The user at position p of all users is in group p modulo G.
    """
    groups, items = counts.shape[0], counts.shape[2]
    for group in range(start, stop):
        for user in range((group - first_user) % groups, lists.shape[0], groups):
            q = 0
            for place in range(cutoffs[-1]):
                if place == cutoffs[q]:
                    q += 1
                code = lists[user, place]
                if 0 <= code < items:
                    counts[group, q, code] += 1


@njit(cache=True, nogil=True)
def place_rows(users: Array, ranks: Array, codes: Array, interests: Array, items: Array, origin: Array) -> int:
    """Write codes to items int32[U, C] at (user, rank - 1), interests to origin where that has columns; ranks beyond C are skipped.

    Returns the row that found its place taken, or -1.
    """
    depth, named = items.shape[1], origin.shape[1] > 0
    for row in range(users.shape[0]):
        if users[row] < 0 or ranks[row] > depth:
            continue
        if items[users[row], ranks[row] - 1] >= 0:
            return row
        items[users[row], ranks[row] - 1] = codes[row]
        if named:
            origin[users[row], ranks[row] - 1] = min(max(interests[row], -1), 32_767)
    return -1


@njit(cache=True, nogil=True)
def count_interests(lists: Array, origin: Array, truth: tuple[Array, Array], cutoffs: Array, places: Array, hits: Array) -> None:
    """Add to int64[K, Q]: list places and hits that each interest brought, by the first cut-off that holds them."""
    offsets, ranks = truth
    which = np.zeros(cutoffs[-1], np.int64)
    for q in range(1, cutoffs.shape[0]):
        which[cutoffs[q - 1] : cutoffs[q]] = q
    for user in range(lists.shape[0]):
        for place in range(cutoffs[-1]):
            if lists[user, place] >= 0 and origin[user, place] >= 0:
                places[origin[user, place], which[place]] += 1
        for rank in ranks[offsets[user] : offsets[user + 1]]:
            if 0 < rank <= cutoffs[-1] and origin[user, rank - 1] >= 0:
                hits[origin[user, rank - 1], which[rank - 1]] += 1


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
