import numpy as np
import pytest

from retrieval.data.kernels import group_by_user, keep_frequent, mark_duplicates, sort_each_user, stable_order

EMPTY = np.empty(0, dtype=np.int64)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 17, 64, 1000])
def test_stable_order_equals_lexsort(size: int) -> None:
    rng = np.random.default_rng(size)
    first, second = rng.integers(0, 5, size), rng.integers(-3, 3, size)
    assert np.array_equal(stable_order(first, EMPTY), np.argsort(first, kind="stable"))
    assert np.array_equal(stable_order(first, second), np.lexsort([second, first]))


@pytest.mark.parametrize("ordered", [False, True])
def test_sequences_are_sorted_by_user_time_order_and_row(ordered: bool) -> None:
    rng = np.random.default_rng(1)
    users = rng.integers(0, 30, 2000).astype(np.int32) // 3 * 2 % 20
    users[:900] = 5
    times, order = rng.integers(0, 40, 2000), rng.integers(0, 4, 2000)
    offsets, places = np.zeros(21, dtype=np.int64), np.empty(2000, dtype=np.uint32)
    group_by_user(users, offsets, places)
    moved = times[places]
    sort_each_user(offsets, moved, order[places] if ordered else EMPTY, places)
    expected = np.lexsort([order, times, users]) if ordered else np.lexsort([times, users])
    assert np.array_equal(places, expected)
    assert np.array_equal(moved, times[expected])
    assert np.array_equal(np.diff(offsets), np.bincount(users, minlength=20))


def test_duplicates_are_the_later_of_equal_events() -> None:
    offsets = np.array([0, 5, 7], dtype=np.int64)
    times = np.array([1, 1, 1, 1, 2, 2, 2], dtype=np.int64)
    items = np.array([4, 3, 4, 4, 4, 4, 4], dtype=np.int32)
    keep = np.ones(7, dtype=np.bool_)
    assert mark_duplicates(offsets, times, EMPTY, items, EMPTY, keep) == 3
    assert keep.tolist() == [True, True, False, False, True, True, False]
    keep[:] = True
    extra = np.array([1, 0, 2, 1, 0, 5, 6], dtype=np.int64)
    assert mark_duplicates(offsets, times, EMPTY, items, extra, keep) == 1
    assert keep.tolist() == [True, True, True, False, True, True, True]


def test_one_round_of_filtering_is_not_the_core() -> None:
    offsets = np.array([0, 2, 4, 5], dtype=np.int64)
    items = np.array([0, 1, 1, 2, 2], dtype=np.int32)
    keep = np.ones(5, dtype=np.bool_)
    assert keep_frequent(offsets, items, keep, (2, 2), 3, False) == 2
    assert keep.tolist() == [False, True, True, True, False]
    assert keep_frequent(offsets, items, keep, (2, 2), 3, True) == 3
    assert not keep.any()
