"""Quotas: the best items by score, with at most so many of a category and of an interest, and at least so many of an interest.

The next item is the first of the pool whose category and interest are not full. A category is full at
ceil(per_category / (1 + lambda)) items, where no per_category means n: a list at lambda spreads over at least 1 + lambda
categories, and lambda = 0 without quotas is the score order. An interest is full at per_interest items, none means no bound,
and never below an even share of n over the interests of the pool, so that a user of one interest keeps the whole list.
When every candidate left is full, both bounds are raised by their own value and the list goes on: it is never shorter than
the pool allows, and its beginning keeps the quotas. As soon as the places left are all needed to give every interest its
least_per_interest items, as far as the pool has them, only interests that lack some are served.

No paper; editors' rules as any feed has them. Categories are the primary ones; an item without one, or brought by no
interest, is never full. lambda acts on shares of the list: scale_free changes nothing. O(n P) a user.
"""

import math

import numpy as np
from numba import njit

from retrieval.index.pools import Pools
from retrieval.recall.context import ListContext
from retrieval.recall.list_kernels import Array, PoolArrays, fill_lists, pick, pool_size
from retrieval.recall.pools import Lists
from retrieval.recall.settings import RecallSettings


def quota(pools: Pools, context: ListContext, settings: RecallSettings) -> Lists:
    """The n items of each pool under the quotas, in the order they are picked; scores stay those of the pool."""
    options = settings.builder
    limit = math.ceil((options.per_category or settings.n) / (1.0 + settings.lambda_))
    bounds = (limit, options.per_interest or settings.n, options.least_per_interest)
    numbers = (int(context.categories.max(initial=-1)) + 2, int(pools.interest.max(initial=-1)) + 2)
    return fill_lists(_quota_users, pools, settings, context.categories, bounds, numbers)


@njit(cache=True, nogil=True)
def _quota_users(
    start: int,
    stop: int,
    source: PoolArrays,
    setting: tuple[float, bool],  # noqa: ARG001 - every builder's loop is called alike
    target: PoolArrays,
    categories: Array,
    bounds: tuple[int, int, int],
    numbers: tuple[int, int],
) -> None:
    rows, _, interests = source
    n = target[0].shape[1]
    # The last entries count items without a category and without an interest: -1 finds them.
    in_category, in_interest, lacking = np.zeros(numbers[0], np.int64), np.zeros(numbers[1], np.int64), np.zeros(numbers[1], np.int64)
    taken, category = np.empty(rows.shape[1], np.bool_), np.empty(rows.shape[1], np.int64)
    for user in range(start, stop):
        filled, interest = pool_size(rows[user]), interests[user]
        taken[:filled] = False
        for i in range(filled):
            category[i] = categories[rows[user, i]]
        even, missing = _wanted(interest, filled, n, bounds[2], lacking)
        times = 1
        for position in range(min(n, filled)):
            last_chance = missing > 0 and missing >= min(n, filled) - position
            place = -1
            while place < 0:
                limits = (times * bounds[0], times * max(bounds[1], even))
                place = _first_open((taken, category, interest, lacking), filled, in_category, in_interest, limits, last_chance)
                times += place < 0
            taken[place] = True
            pick(source, target, user, place, position)
            in_category[category[place]] += 1
            in_interest[interest[place]] += 1
            missing -= lacking[interest[place]] > 0
            lacking[interest[place]] -= 1
        in_category[category[:filled]], in_interest[:] = 0, 0


@njit(cache=True, nogil=True)
def _wanted(interest: Array, filled: int, n: int, least: int, lacking: Array) -> tuple[int, int]:
    """An even share of n over the interests of a pool, and how many places `lacking` wants for them together."""
    lacking[:] = 0
    for i in range(filled):
        lacking[interest[i]] += 1
    lacking[-1] = 0
    present, missing = 0, 0
    for k in range(lacking.shape[0]):
        present += lacking[k] > 0
        lacking[k] = min(lacking[k], least)
        missing += lacking[k]
    return -(-n // max(present, 1)), missing


@njit(cache=True, nogil=True)
def _first_open(
    pool: tuple[Array, Array, Array, Array],
    filled: int,
    in_category: Array,
    in_interest: Array,
    limits: tuple[int, int],
    last_chance: bool,
) -> int:
    """The first candidate that nothing bars, -1 where there is none."""
    taken, category, interest, lacking = pool
    for i in range(filled):
        if taken[i] or (last_chance and lacking[interest[i]] <= 0):
            continue
        fits_category = category[i] < 0 or in_category[category[i]] < limits[0]
        if fits_category and (interest[i] < 0 or in_interest[interest[i]] < limits[1]):
            return i
    return -1
