"""The shuffle test tells a log whose order matters from one whose order is drawn."""

import numpy as np
import pytest

from retrieval.data.sequences import SequenceDataset
from retrieval.data.sequential import sequential
from retrieval.data.splits import Split

N_ITEMS, LENGTH = 300, 12


def of_histories(items: np.ndarray) -> dict:
    users, length = items.shape
    sequences = SequenceDataset(np.arange(users + 1) * length, items.ravel().astype(np.int32), np.tile(np.arange(length), users))
    nothing, everything = np.zeros(users, np.int64), np.full(users, length)
    return sequential(Split(everything, nothing, nothing, nothing, nothing), sequences, N_ITEMS)


def walks(users: int) -> np.ndarray:
    """Every item is followed by the next one."""
    start = np.random.default_rng(1).integers(0, N_ITEMS, users)
    return (start[:, None] + np.arange(LENGTH)) % N_ITEMS


def test_a_walk_is_strongly_sequential() -> None:
    found = of_histories(walks(600))
    assert found["hit_rate"] > 0.99
    assert found["shuffled"] < 0.6
    assert found["low"] > 0.4
    assert "strongly sequential" in found["words"]


def test_a_shuffled_walk_is_not() -> None:
    rng = np.random.default_rng(2)
    found = of_histories(rng.permuted(walks(400), axis=1))
    assert found["low"] < 0 < found["high"]
    assert "says nothing" in found["words"]


def test_the_interval_covers_nothing_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    found = [of_histories(rng.permuted(walks(60), axis=1)) for _ in range(100)]
    covered = sum(each["low"] <= 0 <= each["high"] for each in found)
    assert 88 <= covered <= 100


def test_the_rate_is_that_of_a_loop() -> None:
    rng = np.random.default_rng(4)
    items = rng.integers(0, 15, (40, 6))
    found = of_histories(items)
    best = naive_rate(items)
    assert found["hit_rate"] == pytest.approx(best, abs=1e-6)


def naive_rate(items: np.ndarray) -> float:
    from retrieval.core.seeds import derive_seed

    order = np.random.default_rng(derive_seed(0, "sequential")).permutation(np.arange(len(items)))
    followed: dict[int, dict[int, int]] = {}
    for user in order[::2]:
        for a, b in zip(items[user], items[user][1:], strict=False):
            counts = followed.setdefault(int(a), {})
            counts[int(b)] = counts.get(int(b), 0) + 1
    rates = []
    for user in order[1::2]:
        hits = []
        for a, b in zip(items[user], items[user][1:], strict=False):
            counts = followed.get(int(a), {})
            hits.append(int(b) in sorted(counts, key=lambda item: (-counts[item], item))[:10])
        rates.append(np.mean(hits))
    return float(np.mean(rates))


def test_two_users_are_too_few_to_say() -> None:
    assert of_histories(walks(2))["users"] == 0
