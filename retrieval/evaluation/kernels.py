"""Metrics of ranked lists, one user at a time: compiled, without the GIL, one implementation.

`lists` int32[U, C]: code of the item at each rank, -1 for none; codes below N are rows of the catalog. `cutoffs` int64[Q]
ascending, the last at most C. Values go to `out` float64[U, metrics * Q], cut-offs of one metric side by side, NaN where a
list has no value.
"""

import numpy as np
from numba import njit

Array = np.ndarray
_LOG_2 = np.log(2.0)


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
