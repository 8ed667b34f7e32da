"""The category greedy against the naive loop of ComiRec, and against every possible list."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.index.pools import Pools
from retrieval.recall.greedy import category_greedy

USERS, CANDIDATES, LISTED, ITEMS = 4000, 60, 25, 400


def naive_greedy(scores: np.ndarray, categories: np.ndarray, n: int, lambda_: float) -> list[int]:
    """Places in the pool that the greedy of the paper picks: f(i) + lambda * sum over j in S of [cat(i) != cat(j)]."""
    chosen: list[int] = []
    left = list(range(len(scores)))
    while left and len(chosen) < n:
        own = categories[left][:, None]
        gains = scores[left].astype(np.float64) + lambda_ * ((own != categories[chosen]) | (own < 0)).sum(axis=1)
        chosen.append(left.pop(int(np.argmax(gains))))
    return chosen


def random_pools(seed: int, users: int, size: int, items: int, steps: int) -> Pools:
    """Pools by (-score, row), some of them short; scores are multiples of 1/64, so that sums with them are exact."""
    random = np.random.default_rng(seed)
    rows = np.argsort(random.random((users, items)), axis=1)[:, :size].astype(np.int64)
    scores = (random.integers(-steps, steps + 1, (users, size)) / 64).astype(np.float32)
    order = np.lexsort((rows, -scores), axis=1)
    rows, scores = np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)
    interest = random.integers(0, 4, (users, size)).astype(np.int32)
    past = np.arange(size) >= random.choice([0, 1, size // 3, size, size, size], users)[:, None]
    rows[past], scores[past], interest[past] = -1, -np.inf, -1
    return Pools(rows, scores, interest)


def random_categories(seed: int, items: int, codes: int) -> np.ndarray:
    """Some items have none (-1)."""
    return np.random.default_rng(seed).integers(-1, codes, items).astype(np.int32)


def assert_lists_are(pools: Pools, categories: np.ndarray, n: int, lambda_: float, scale_free: bool, threads: int = 1) -> None:
    lists = category_greedy(pools, categories, n, lambda_, scale_free=scale_free, threads=threads)
    assert lists.rows.shape == lists.scores.shape == lists.interest.shape == (len(pools.rows), n)
    for user, (rows, scores) in enumerate(zip(pools.rows, pools.scores, strict=True)):
        size = int((rows >= 0).sum())
        plain = scores[:size].astype(np.float64)
        price = lambda_ * (plain.std() if scale_free and size and plain.std() > 0 else 1.0)
        places = naive_greedy(plain, categories[rows[:size]], n, price)
        assert lists.rows[user, : len(places)].tolist() == rows[places].tolist(), (user, lambda_)
        assert lists.scores[user, : len(places)].tolist() == scores[places].tolist()
        assert lists.interest[user, : len(places)].tolist() == pools.interest[user, places].tolist()
        assert (lists.rows[user, len(places) :] == -1).all()
        assert (lists.scores[user, len(places) :] == -np.inf).all()
        assert (lists.interest[user, len(places) :] == -1).all()


@pytest.mark.parametrize(
    ("lambda_", "steps", "codes", "seed"),
    [(0.0, 200, 5, 0), (0.25, 200, 12, 1), (0.25, 3, 4, 2), (1.0, 40, 30, 3), (512.0, 200, 8, 4)],
)
def test_equals_the_loop_on_thousands_of_users(lambda_, steps, codes, seed):
    # Multiples of 1/64 that lambda is one of as well: equal values are truly equal, and the first in the pool wins them.
    pools = random_pools(seed, USERS, CANDIDATES, ITEMS, steps)
    assert_lists_are(pools, random_categories(seed, ITEMS, codes), LISTED, lambda_, scale_free=False)


@pytest.mark.parametrize(("lambda_", "seed"), [(0.0, 5), (0.1, 6), (0.7, 7), (50.0, 8)])
def test_scale_free_lambda_counts_standard_deviations(lambda_, seed):
    pools = random_pools(seed, USERS // 10, CANDIDATES, ITEMS, 3000)
    assert_lists_are(pools, random_categories(seed, ITEMS, 9), LISTED, lambda_, scale_free=True)


@given(
    seed=st.integers(0, 2**32),
    size=st.integers(1, 12),
    codes=st.integers(1, 5),
    steps=st.integers(0, 20),
    n=st.integers(1, 15),
    lambda_=st.sampled_from([0.0, 1 / 64, 0.125, 0.5, 3.0, 4096.0, 2.0**40]),
)
def test_equals_the_loop_on_small_pools(seed, size, codes, steps, n, lambda_):
    pools = random_pools(seed, 20, size, 30, steps)
    assert_lists_are(pools, random_categories(seed, 30, codes), n, lambda_, scale_free=False, threads=2)


def objective(scores: np.ndarray, categories: np.ndarray, chosen: tuple[int, ...], lambda_: float) -> float:
    """sum f(i) + lambda * (unordered pairs of different categories); an item without a category differs from all."""
    pairs = sum(categories[i] < 0 or categories[i] != categories[j] for i, j in itertools.combinations(chosen, 2))
    return float(scores[list(chosen)].sum()) + lambda_ * pairs


@given(
    seed=st.integers(0, 2**32),
    size=st.integers(1, 8),
    codes=st.integers(1, 4),
    n=st.integers(1, 5),
    lambda_=st.sampled_from([0.0, 0.125, 1.0, 8.0]),
)
def test_no_other_list_is_worth_more(seed, size, codes, n, lambda_):
    pools, categories = random_pools(seed, 1, size, 12, 200), random_categories(seed, 12, codes)
    size = int((pools.rows[0] >= 0).sum())
    scores, own = pools.scores[0, :size].astype(np.float64), categories[pools.rows[0, :size]]
    lists = category_greedy(pools, categories, n, lambda_, scale_free=False)
    chosen = tuple(pools.rows[0].tolist().index(row) for row in lists.rows[0] if row >= 0)
    best = max(objective(scores, own, each, lambda_) for each in itertools.combinations(range(size), min(n, size)))
    assert objective(scores, own, chosen, lambda_) == best


@given(seed=st.integers(0, 2**32), lower=st.floats(0, 3), more=st.floats(0, 3))
def test_a_larger_lambda_never_gives_fewer_pairs_of_different_categories(seed, lower, more):
    pools, categories = random_pools(seed, 5, 30, 60, 100), random_categories(seed, 60, 4)

    def pairs(lambda_: float) -> list[float]:
        lists = category_greedy(pools, categories, 8, lambda_, scale_free=False)
        chosen = [categories[line[line >= 0]] for line in lists.rows]
        return [objective(np.zeros(len(own)), own, tuple(range(len(own))), 1.0) for own in chosen]

    assert all(before <= after for before, after in zip(pairs(lower), pairs(lower + more), strict=True))
