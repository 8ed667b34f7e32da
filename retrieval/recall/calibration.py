"""Calibrated lists (Steck, RecSys 2018, sections 3 and 4): a list whose categories keep the shares of the user's history.

p(g) is the share of category g in the history, q(g) in the list; an item's categories share it equally, and every event
and every rank weighs the same. The next item i of a list S is the one with the largest

    f(i) - lambda * KL(p || q~ of S with i),   q~ = .99 q + .01 p,

which orders candidates as the paper's (1 - L) sum f - L KL does at L = lambda / (1 + lambda). The divergence is in nats;
of a list without any category it is log 100.

Differs from the paper: items without a category count neither in the history nor in the list; users whose history has no
category get the score order; lambda may count standard deviations of the user's own pool. Equal values go to the item
that stands first in the pool. What an item changes depends on its categories and their number only, so that a step takes
one logarithm a category of the history and one a pair (category, number) of the pool, not one a candidate and category.
"""

import math

import numpy as np
from numba import njit

from retrieval.index.pools import Pools
from retrieval.recall.context import ListContext, needed
from retrieval.recall.list_kernels import Array, PoolArrays, fill_lists, first_left, largest, pick, pool_size, price_of
from retrieval.recall.pools import Lists
from retrieval.recall.settings import RecallSettings


def calibration(pools: Pools, context: ListContext, settings: RecallSettings) -> Lists:
    """The n items of each pool by calibrated greedy, in the order they are picked; scores stay those of the pool."""
    labels, histories = needed(context.labels, "labels"), needed(context.histories, "histories")
    past = (np.asarray(histories.offsets), np.asarray(histories.items))
    catalog = (labels.offsets, labels.codes, labels.count, int(np.diff(labels.offsets).max(initial=0)))
    return fill_lists(_calibrate_users, pools, settings, catalog, past, settings.builder.smoothing)


@njit(cache=True, nogil=True)
def _calibrate_users(
    start: int,
    stop: int,
    source: PoolArrays,
    setting: tuple[float, bool],
    target: PoolArrays,
    catalog: tuple[Array, Array, int, int],
    past: tuple[Array, Array],
    smoothing: float,
) -> None:
    rows, scores, _ = source
    count, most, size, n = catalog[2], catalog[3], rows.shape[1], target[0].shape[1]
    number_of, known, shares = np.full(count, -1, np.int64), np.empty(count, np.int64), (np.empty(count), np.empty(count))
    pairs = (np.empty(size + 1, np.int64), np.empty(size * most, np.int64), np.empty((size * most, 2), np.int64))
    pair_of, change = np.full((count, most + 1), -1, np.int64), np.empty(size * most)
    left, values = np.empty(size), np.empty(size)
    for user in range(start, stop):
        filled, listed = pool_size(rows[user]), 0
        found = _history(past[1][past[0][user] : past[0][user + 1]], catalog, number_of, known, shares)
        used = _pairs(rows[user], filled, catalog, number_of, pair_of, pairs)
        price = price_of(setting, scores[user], filled) if found > 0 else 0.0
        left[:filled] = scores[user, :filled]
        for position in range(min(n, filled)):
            now, then = _divergence(shares, found, listed, smoothing), _divergence(shares, found, listed + 1, smoothing)
            _changes(pairs[2][:used], shares, listed + 1, smoothing, change)
            for i in range(filled):
                after = then if catalog[0][rows[user, i] + 1] > catalog[0][rows[user, i]] else now
                for slot in range(pairs[0][i], pairs[0][i + 1]):
                    after += change[pairs[1][slot]]
                values[i] = left[i] - price * after
            place = largest(values, filled)
            place = first_left(left) if place < 0 else place
            left[place] = np.nan
            pick(source, target, user, place, position)
            listed += catalog[0][rows[user, place] + 1] > catalog[0][rows[user, place]]
            for pair in pairs[1][pairs[0][place] : pairs[0][place + 1]]:
                shares[1][pairs[2][pair, 0]] += 1.0 / pairs[2][pair, 1]
        number_of[known[:found]] = -1
        for pair in pairs[2][:used]:
            pair_of[pair[0], pair[1]] = -1


@njit(cache=True, nogil=True)
def _history(items: Array, catalog: tuple[Array, Array, int, int], number_of: Array, known: Array, shares: tuple[Array, Array]) -> int:
    """The shares of the categories of a history, numbered as they are met, and none of them in the list; how many there are."""
    offsets, codes, wanted = catalog[0], catalog[1], shares[0]
    found, counted = 0, 0
    for item in items:
        own = codes[offsets[item] : offsets[item + 1]]
        counted += len(own) > 0
        for code in own:
            if number_of[code] < 0:
                number_of[code], known[found], wanted[found] = found, code, 0.0
                found += 1
            wanted[number_of[code]] += 1.0 / len(own)
    for g in range(found):
        wanted[g] /= counted
    shares[1][:found] = 0.0
    return found


@njit(cache=True, nogil=True)
def _pairs(
    rows: Array,
    filled: int,
    catalog: tuple[Array, Array, int, int],
    number_of: Array,
    pair_of: Array,
    pairs: tuple[Array, Array, Array],
) -> int:
    """Number the pairs (category of the history, categories of the item) of a pool; how many there are.

    `pairs` gets where each candidate's pairs begin, their numbers, and what each number stands for. `pair_of` is all -1
    before.
    """
    offsets, codes = catalog[0], catalog[1]
    starts, numbers, meaning = pairs
    used, slot = 0, 0
    for i in range(filled):
        starts[i] = slot
        own = codes[offsets[rows[i]] : offsets[rows[i] + 1]]
        for code in own:
            g = number_of[code]
            if g < 0:
                continue
            if pair_of[g, len(own)] < 0:
                pair_of[g, len(own)], meaning[used, 0], meaning[used, 1] = used, g, len(own)
                used += 1
            numbers[slot] = pair_of[g, len(own)]
            slot += 1
    starts[filled] = slot
    return used


@njit(cache=True, nogil=True)
def _divergence(shares: tuple[Array, Array], found: int, listed: int, smoothing: float) -> float:
    """KL(p || q~) of what is listed, were there `listed` items with a category."""
    wanted, got = shares
    total, each = 0.0, (1.0 - smoothing) / max(listed, 1)
    for g in range(found):
        total += wanted[g] * math.log(wanted[g] / (each * got[g] + smoothing * wanted[g]))
    return total


@njit(cache=True, nogil=True)
def _changes(meaning: Array, shares: tuple[Array, Array], listed: int, smoothing: float, change: Array) -> None:
    """What one more item would change in the divergence by a category, for every pair."""
    wanted, got = shares
    each = (1.0 - smoothing) / listed
    for pair in range(meaning.shape[0]):
        g = meaning[pair, 0]
        before = each * got[g] + smoothing * wanted[g]
        change[pair] = wanted[g] * math.log(before / (before + each / meaning[pair, 1]))
