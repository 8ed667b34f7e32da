"""xQuAD (Santos, Macdonald and Ounis, WWW 2010, section 3) with the user's interests as the aspects.

The next item i of a list S is the one with the largest

    P(i|u) + lambda * sum over k of P(k|u) P(i|u, k) * product over j in S of (1 - P(j|u, k)),

which orders candidates as the paper's (1 - L) P + L sum does at L = lambda / (1 + lambda). P(i|u, k) is the softmax over the
pool of the inner products with interest k, the model's own probability of the item were the pool the catalog; P(i|u) that of
the pool's scores, the largest of these products; P(k|u) is the same for every valid interest of the user. An interest
whose candidates are few and score high gets its turn until the mass of its candidates is spent.

Differs from the paper: sub-queries are interests, their importance is uniform, and both probabilities are softmaxes over the
pool. Both weights are probabilities, so lambda has no scale; with scale_free the exponents count standard deviations of the
user's own pool, and a list does not depend on the model's temperature. Users without a valid interest get the score
order. Equal values go to the item that stands first in the pool.
"""

import numpy as np
from numba import njit

from retrieval.index.kernels import dot
from retrieval.index.pools import Pools
from retrieval.recall.context import ListContext, needed
from retrieval.recall.list_kernels import Array, PoolArrays, deviation, fill_lists, first_left, largest, pick, pool_size
from retrieval.recall.pools import Lists
from retrieval.recall.settings import RecallSettings


def xquad(pools: Pools, context: ListContext, settings: RecallSettings) -> Lists:
    """The n items of each pool by xQuAD, in the order they are picked; scores stay those of the pool."""
    vectors, interests = np.asarray(needed(context.vectors, "vectors")), needed(context.interests, "interests")
    return fill_lists(_xquad_users, pools, settings, vectors, interests.vectors, interests.valid)


@njit(cache=True, nogil=True)
def _xquad_users(
    start: int,
    stop: int,
    source: PoolArrays,
    setting: tuple[float, bool],
    target: PoolArrays,
    vectors: Array,
    interests: Array,
    valid: Array,
) -> None:
    rows, scores, _ = source
    size, n = rows.shape[1], target[0].shape[1]
    chances, open_share = np.empty((interests.shape[1], size)), np.empty(interests.shape[1])
    left, values, vector = np.empty(size), np.empty(size), np.empty(interests.shape[2])
    for user in range(start, stop):
        filled = pool_size(rows[user])
        scale = deviation(scores[user], filled) if setting[1] else 1.0
        aspects = 0
        for interest in np.flatnonzero(valid[user]):
            vector[:] = interests[user, interest]
            for i in range(filled):
                chances[aspects, i] = np.float32(dot(vectors[rows[user, i]], vector)) if scores[user, i] > -np.inf else -np.inf
            _softmax(chances[aspects], filled, scale)
            aspects += 1
        open_share[:aspects] = 1.0 / max(aspects, 1)
        left[:filled] = scores[user, :filled]
        _softmax(left, filled, scale)
        for i in range(filled):
            left[i] = left[i] if scores[user, i] > -np.inf else -np.inf
        for position in range(min(n, filled)):
            values[:filled] = left[:filled]
            for k in range(aspects):
                _add(values, setting[0] * open_share[k], chances[k], filled)
            place = largest(values, filled)
            place = first_left(left) if place < 0 else place
            left[place] = np.nan
            pick(source, target, user, place, position)
            for k in range(aspects):
                open_share[k] *= 1.0 - chances[k, place]


@njit(cache=True, nogil=True)
def _softmax(values: Array, count: int, scale: float) -> None:
    """Shares that add up to 1; -inf has none, and where all are -inf nothing has any."""
    highest, total = -np.inf, 0.0
    for i in range(count):
        highest = max(highest, values[i])
    for i in range(count):
        values[i] = np.exp((values[i] - highest) / scale) if values[i] > -np.inf else 0.0
        total += values[i]
    for i in range(count):
        values[i] /= max(total, 1.0)


@njit(cache=True, nogil=True)
def _add(values: Array, weight: float, shares: Array, count: int) -> None:
    for i in range(count):
        values[i] += weight * shares[i]
