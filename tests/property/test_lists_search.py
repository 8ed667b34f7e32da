"""Pools of several interests against a merge by dictionary, for exact and approximate indexes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.index.pools import Pools, Seen
from retrieval.index.settings import IndexSettings
from retrieval.index.table import build_index
from retrieval.recall import search as search_module
from retrieval.recall.search import InterestSearch

KINDS = ["exact", "Flat", "IVF8,Flat", "HNSW32", "IVF8,SQ8"]


def index_of(vectors: np.ndarray, kind: str = "exact", over_fetch: int = 16, threads: int = 1):
    return build_index(vectors, IndexSettings(factory=kind, device="cpu", nprobe=4, over_fetch=over_fetch, threads=threads))


def seen_of(histories: list[list[int]]) -> Seen:
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in histories])]).astype(np.int64)
    return Seen(offsets, np.array([item for each in histories for item in each], dtype=np.int32))


def merged(vectors, interests, valid, n, history, blocked) -> list[tuple[int, np.float32, int]]:
    """(row, score, interest) of one user's n best items: the largest over valid interests, equal scores by row."""
    best: dict[int, tuple[np.float32, int]] = {}
    for interest in np.flatnonzero(valid):
        for row, score in enumerate(vectors.astype(np.float64) @ interests[interest].astype(np.float64)):
            if row not in history and not blocked[row] and (row not in best or np.float32(score) > best[row][0]):
                best[row] = (np.float32(score), int(interest))
    ranked = sorted(best.items(), key=lambda entry: (-entry[1][0], entry[0]))
    return [(row, score, interest) for row, (score, interest) in ranked[:n]]


def assert_pools_are(pools: Pools, wanted: list[list[tuple[int, np.float32, int]]], n: int) -> None:
    assert pools.rows.shape == pools.scores.shape == pools.interest.shape == (len(wanted), n)
    for user, expected in enumerate(wanted):
        size = len(expected)
        found = zip(pools.rows[user, :size].tolist(), pools.scores[user, :size], pools.interest[user, :size].tolist(), strict=True)
        assert list(found) == expected, user
        assert (pools.rows[user, size:] == -1).all()
        assert (pools.scores[user, size:] == -np.inf).all()
        assert (pools.interest[user, size:] == -1).all()


def random_vectors(random: np.random.Generator, shape: tuple[int, ...], spread: str) -> np.ndarray:
    """Numbers whose products add up exactly in float64 whatever the order, though not in float32.

    few: tiny whole numbers, many truly equal scores. wide: 13 bits each. near: scores that differ by less than float32 holds.
    """
    if spread == "few":
        return random.integers(-1, 2, shape).astype(np.float32)
    values = random.integers(-(2**13), 2**13, shape)
    if spread == "near":
        values[..., : shape[-1] // 2] = 2**13 - 1
        values[..., shape[-1] // 2 :] = random.integers(-1, 2, values[..., shape[-1] // 2 :].shape)
    return values.astype(np.float32)


def random_batch(random: np.random.Generator, users: int, interests: int, items: int, dimension: int, spread: str):
    vectors = random_vectors(random, (users, interests, dimension), spread)
    valid = random.random((users, interests)) < 0.7
    vectors[~valid] = random.choice([np.nan, np.inf, 9e9])
    lengths = random.choice([0, 1, items // 2, items, 3 * items], users)
    return vectors, valid, [random.integers(0, items, length).tolist() for length in lengths]


@given(
    seed=st.integers(0, 2**32),
    kind=st.sampled_from(["exact", "Flat"]),
    spread=st.sampled_from(["few", "wide", "near"]),
    items=st.sampled_from([1, 3, 40, 400]),
    n=st.sampled_from([1, 4, 50]),
    interests=st.integers(1, 4),
    dimension=st.sampled_from([1, 2, 8, 13]),
    over_fetch=st.sampled_from([0, 3, 16]),
    blocked_share=st.sampled_from([0.0, 0.5, 0.98, 1.0]),
    threads=st.integers(1, 3),
)
def test_equals_a_merge_by_dictionary(seed, kind, spread, items, n, interests, dimension, over_fetch, blocked_share, threads):
    random = np.random.default_rng(seed)
    vectors = random_vectors(random, (items, dimension), spread)
    asked, valid, histories = random_batch(random, 6, interests, items, dimension, spread)
    blocked = random.random(items) < blocked_share
    search = InterestSearch(index_of(vectors, kind, over_fetch), vectors, n, blocked=blocked, threads=threads)
    pools = search(asked, valid, seen_of(histories))
    wanted = [merged(vectors, asked[u], valid[u], n, set(histories[u]), blocked) for u in range(6)]
    assert_pools_are(pools, wanted, n)


@given(
    seed=st.integers(0, 2**32),
    kind=st.sampled_from(["IVF8,Flat", "HNSW32", "IVF8,SQ8"]),
    items=st.sampled_from([20, 300]),
    n=st.sampled_from([1, 10, 40]),
    blocked_share=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_an_approximate_index_gives_full_sorted_truly_scored_pools(seed, kind, items, n, blocked_share):
    random = np.random.default_rng(seed)
    vectors = random_vectors(random, (items, 8), "wide")
    asked, valid, histories = random_batch(random, 6, 3, items, 8, "wide")
    blocked = random.random(items) < blocked_share
    pools = InterestSearch(index_of(vectors, kind), vectors, n, blocked=blocked, threads=1)(asked, valid, seen_of(histories))
    for user in range(6):
        everything = merged(vectors, asked[user], valid[user], items, set(histories[user]), blocked)
        size = min(n, len(everything))
        true = {row: (score, interest) for row, score, interest in everything}
        rows = pools.rows[user, :size].tolist()
        assert [true[row] for row in rows] == list(zip(pools.scores[user, :size], pools.interest[user, :size].tolist(), strict=True))
        assert rows == sorted(set(rows), key=lambda row: (-true[row][0], row))
        assert (pools.rows[user, size:] == -1).all()


@pytest.fixture(scope="module")
def crowd():
    """Users of every kind over random, not whole, numbers: long and short histories, none, no interests, near-equal items."""
    random = np.random.default_rng(3)
    vectors = random.normal(size=(1500, 16)).astype(np.float32)
    vectors[500:1000] = vectors[:500] * np.float32(1 + 1e-7)
    asked = random.normal(size=(60, 4, 16)).astype(np.float32)
    valid = random.random((60, 4)) < 0.6
    lengths = random.choice([0, 0, 3, 30, 200, 1400, 1500], 60)
    histories = [random.permutation(1500)[:length].tolist() for length in lengths]
    return vectors, asked, valid, histories, random.random(1500) < 0.1


def contents(parts: list[Pools]) -> tuple[bytes, ...]:
    return tuple(np.concatenate([getattr(part, name) for part in parts]).tobytes() for name in ("rows", "scores", "interest"))


@pytest.mark.parametrize("kind", KINDS)
def test_batch_threads_company_and_memory_change_no_byte(kind, crowd, monkeypatch):
    vectors, asked, valid, histories, blocked = crowd
    index = index_of(vectors, kind)
    search = InterestSearch(index, vectors, 30, blocked=blocked, threads=1)
    whole = search(asked, valid, seen_of(histories))
    for size in (1, 7, 59):
        parts = [slice(start, start + size) for start in range(0, 60, size)]
        assert contents([search(asked[part], valid[part], seen_of(histories[part])) for part in parts]) == contents([whole])
    several = InterestSearch(index_of(vectors, kind, threads=2), vectors, 30, blocked=blocked, threads=3)
    assert contents([several(asked, valid, seen_of(histories))]) == contents([whole])
    order = np.random.default_rng(0).permutation(60)
    shuffled = search(asked[order], valid[order], seen_of([histories[user] for user in order]))
    back = np.argsort(order)
    assert contents([Pools(shuffled.rows[back], shuffled.scores[back], shuffled.interest[back])]) == contents([whole])
    monkeypatch.setattr(search_module, "_MOST_HITS", 1)
    assert contents([search(asked, valid, seen_of(histories))]) == contents([whole])


def test_exact_and_flat_give_the_same_bytes_for_any_over_fetch(crowd):
    vectors, asked, valid, histories, blocked = crowd
    pools = [
        InterestSearch(index_of(vectors, kind, over_fetch), vectors, 30, blocked=blocked)(asked, valid, seen_of(histories))
        for kind in ("exact", "Flat")
        for over_fetch in (0, 1, 100)
    ]
    assert len({contents([each]) for each in pools}) == 1


@pytest.mark.parametrize("kind", ["exact", "Flat"])
@pytest.mark.parametrize("n", [1, 2])
def test_the_best_item_is_found_where_float32_products_put_another_first(kind, n):
    random = np.random.default_rng(5)
    base = random.normal(size=64)
    vectors = (base + random.normal(size=(1000, 64)) * 1e-7).astype(np.float32)
    asked = (base + random.normal(size=(150, 1, 64)) * 1e-2).astype(np.float32)
    index = index_of(vectors, kind, over_fetch=0)
    pools = InterestSearch(index, vectors, n, threads=1)(asked, np.ones((150, 1), bool), seen_of([[]] * 150))
    # What products in float32 would say is wrong for many of them, or this would test nothing.
    alone = np.argsort(-(asked[:, 0] @ vectors.T), axis=1, kind="stable")[:, :n]
    assert (alone != pools.rows).any(axis=1).sum() > 15
    scores = np.zeros((150, 1000), np.float64)
    for dimension in range(64):
        scores += asked[:, :, dimension].astype(np.float64) * vectors[:, dimension].astype(np.float64)
    wanted = np.argsort(-scores.astype(np.float32), axis=1, kind="stable")[:, :n]
    assert np.array_equal(pools.rows, wanted)


@given(seed=st.integers(0, 2**32), items=st.integers(1, 300), largest=st.integers(0, 3), n=st.integers(1, 40), seen=st.integers(0, 300))
def test_a_popularity_of_one_dimension_with_many_equal_scores_comes_by_row(seed, items, largest, n, seen):
    random = np.random.default_rng(seed)
    vectors = random.integers(0, largest + 1, (items, 1)).astype(np.float32)
    history = random.integers(0, items, seen).tolist()
    search = InterestSearch(index_of(vectors, "Flat"), vectors, n, threads=1)
    pools = search(np.ones((1, 1, 1), np.float32), np.ones((1, 1), bool), seen_of([history]))
    order = sorted(set(range(items)) - set(history), key=lambda row: (-vectors[row, 0], row))[:n]
    assert pools.rows[0, : len(order)].tolist() == order
    assert (pools.rows[0, len(order) :] == -1).all()
