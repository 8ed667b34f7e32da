"""The closed form of the category-aware greedy against the loop it replaces, and against the optimum."""

import itertools

import numpy as np
import pytest

from retrieval.core.errors import UsageError
from retrieval.index.pools import Pools
from retrieval.recall.greedy import category_greedy
from retrieval.recall.pools import Lists


def comirec_loop(scores: list[float], categories: list[int], n: int, lambda_: float) -> list[int]:
    """Algorithm 1 of the paper: add the item that gains most, f(i) + lambda * sum over chosen j of [cat(i) != cat(j)]."""
    chosen: list[int] = []
    for _ in range(min(n, len(scores))):
        best, best_gain = -1, -np.inf
        for item, score in enumerate(scores):
            if item in chosen:
                continue
            different = sum(categories[item] < 0 or categories[item] != categories[other] for other in chosen)
            if score + lambda_ * different > best_gain:
                best, best_gain = item, score + lambda_ * different
        chosen.append(best)
    return chosen


def pool_of(scores: np.ndarray, width: int | None = None) -> Pools:
    """One user whose candidates are the rows 0.. in order of score."""
    pools = Pools.empty(1, width or len(scores))
    pools.rows[0, : len(scores)], pools.scores[0, : len(scores)] = np.arange(len(scores)), scores
    pools.interest[0, : len(scores)] = np.arange(len(scores)) % 3
    return pools


def greedy(scores: np.ndarray, categories: np.ndarray, n: int, lambda_: float, *, scale_free: bool = False) -> Lists:
    return category_greedy(pool_of(scores), categories.astype(np.int32), n, lambda_, scale_free=scale_free)


def objective(scores: np.ndarray, categories: np.ndarray, items: tuple[int, ...], lambda_: float) -> float:
    pairs = itertools.combinations(items, 2)
    return sum(scores[list(items)]) + lambda_ * sum(categories[i] < 0 or categories[i] != categories[j] for i, j in pairs)


def test_by_hand() -> None:
    scores, categories = np.array([5.0, 4.0, 3.0, 2.5, 1.0]), np.array([0, 0, 0, 1, -1])
    assert greedy(scores, categories, 3, 0.0).rows.tolist() == [[0, 1, 2]]
    # 4 - 1.25 = 2.75 still beats 2.5; the third of its category, 3 - 2.5, does not even beat 1.
    assert greedy(scores, categories, 5, 1.25).rows.tolist() == [[0, 1, 3, 4, 2]]
    assert greedy(scores, categories, 3, 100.0).rows.tolist() == [[0, 3, 4]]


def test_equals_the_loop_on_thousands_of_cases() -> None:
    rng = np.random.default_rng(7)
    different = []
    for case in range(3000):
        size, kinds, n = int(rng.integers(1, 40)), int(rng.integers(1, 9)), int(rng.integers(1, 25))
        # Eighths are exact in binary, so equal gains are equal in both forms; every other case is full of ties.
        grid = 8 if case % 2 else 1
        scores = -np.sort(-rng.integers(-4 * grid, 4 * grid, size) / grid)
        categories = rng.integers(-1, kinds, size)
        lambda_ = float(rng.choice([0.0, 0.125, 0.5, 1.0, 3.0, 1000.0]))
        found = greedy(scores, categories, n, lambda_).rows[0]
        if found[found >= 0].tolist() != comirec_loop(scores.tolist(), categories.tolist(), n, lambda_):
            different.append((scores, categories, n, lambda_))
    assert different == []


def test_equals_the_loop_on_scores_of_a_model() -> None:
    rng = np.random.default_rng(8)
    for _ in range(300):
        scores = -np.sort(-rng.standard_normal(60).astype(np.float32))
        categories, lambda_ = rng.integers(0, 6, 60), float(rng.random() * 2)
        assert greedy(scores, categories, 30, lambda_).rows[0].tolist() == comirec_loop(scores.tolist(), categories.tolist(), 30, lambda_)


def test_is_the_optimum_over_unordered_pairs() -> None:
    rng = np.random.default_rng(9)
    for _ in range(150):
        size, n = int(rng.integers(3, 9)), int(rng.integers(1, 5))
        scores, categories, lambda_ = -np.sort(-rng.standard_normal(size)), rng.integers(-1, 3, size), float(rng.random() * 3)
        found = greedy(scores.astype(np.float32), categories, min(n, size), lambda_).rows[0]
        best = max(objective(scores, categories, items, lambda_) for items in itertools.combinations(range(size), min(n, size)))
        assert objective(scores, categories, tuple(found), lambda_) == pytest.approx(best, abs=1e-5)


def test_scale_free_lists_ignore_scale_and_offset() -> None:
    rng = np.random.default_rng(10)
    for _ in range(100):
        # Whole numbers stay exact under the change of scale, so rounding decides nothing.
        scores = -np.sort(-rng.integers(-64, 64, 30).astype(np.float64))
        categories, lambda_ = rng.integers(0, 4, 30), float(rng.random() * 2)
        plain = greedy(scores, categories, 12, lambda_, scale_free=True).rows
        moved = greedy(scores * 4 + 256, categories, 12, lambda_, scale_free=True).rows
        by_hand = greedy(scores, categories, 12, lambda_ * float(scores.std() or 1.0)).rows
        assert plain.tolist() == moved.tolist() == by_hand.tolist()


def test_scale_free_with_equal_scores_spreads_over_categories() -> None:
    found = greedy(np.ones(6), np.array([0, 0, 0, 1, 1, 2]), 3, 0.1, scale_free=True)
    assert found.rows.tolist() == [[0, 3, 5]]


def test_scores_and_interests_stay_with_their_items() -> None:
    scores = np.array([5.0, 4.0, 3.0, 2.0], dtype=np.float32)
    found = greedy(scores, np.array([0, 0, 1, 1]), 3, 10.0)
    assert found.rows.tolist() == [[0, 2, 1]]
    assert found.scores.tolist() == [[5.0, 3.0, 4.0]]
    assert found.interest.tolist() == [[0, 2, 1]]


def test_short_and_empty_pools_leave_places_free() -> None:
    pools = Pools.empty(2, 4)
    pools.rows[0, :2], pools.scores[0, :2], pools.interest[0, :2] = [7, 3], [1.0, 0.5], 0
    lists = category_greedy(pools, np.zeros(8, np.int32), 3, 0.2, scale_free=False)
    assert lists.rows.tolist() == [[7, 3, -1], [-1, -1, -1]]
    assert lists.interest.tolist() == [[0, 0, -1], [-1, -1, -1]]
    assert np.isneginf(lists.scores[1]).all()


def test_users_do_not_touch_each_other_whatever_the_threads() -> None:
    rng = np.random.default_rng(11)
    pools = Pools.empty(37, 50)
    for user in range(37):
        pools.rows[user], pools.scores[user] = rng.choice(400, 50, replace=False), -np.sort(-rng.standard_normal(50))
    categories = rng.integers(-1, 12, 400).astype(np.int32)
    together = [category_greedy(pools, categories, 20, 0.7, scale_free=True, threads=threads).rows for threads in (1, 3)]
    parts = [Pools(pools.rows[u : u + 1], pools.scores[u : u + 1], pools.interest[u : u + 1]) for u in range(37)]
    alone = np.concatenate([category_greedy(part, categories, 20, 0.7, scale_free=True).rows for part in parts])
    assert np.array_equal(together[0], alone)
    assert np.array_equal(together[1], alone)


@pytest.mark.parametrize("lambda_", [-0.1, float("nan"), float("inf")])
def test_a_lambda_below_zero_is_refused(lambda_: float) -> None:
    with pytest.raises(UsageError, match="lambda"):
        greedy(np.ones(2), np.zeros(2), 1, lambda_)
