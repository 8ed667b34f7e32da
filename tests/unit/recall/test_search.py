"""Searching users: long histories, block lists, near ties, refusals."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from retrieval.core.errors import IntegrityError, UsageError
from retrieval.index.abstract import AbstractIndex, Hits
from retrieval.index.kernels import dot
from retrieval.index.pools import Pools, Seen
from retrieval.index.settings import IndexSettings
from retrieval.index.table import build_index
from retrieval.recall.kernels import scan_users
from retrieval.recall.search import InterestSearch

CPU = IndexSettings(device="cpu", threads=1)


class FloatIndex(AbstractIndex):
    """Exact in float32, as another library's index is; of equal scores it returns the highest rows."""

    def __init__(self, vectors: np.ndarray) -> None:
        super().__init__(CPU, *vectors.shape)
        self.vectors = vectors

    @property
    def is_exact(self) -> bool:
        return True

    def _search(self, queries: np.ndarray, n: int) -> Hits:
        scores = (queries @ self.vectors.T)[:, ::-1]
        order = np.argsort(-scores, axis=1, kind="stable")[:, :n]
        return Hits(self.count - 1 - order, np.take_along_axis(scores, order, axis=1))

    def write(self, path: Path) -> None:
        raise NotImplementedError


class SpiedIndex(FloatIndex):
    """Remembers how many hits were asked for."""

    def __init__(self, vectors: np.ndarray) -> None:
        super().__init__(vectors)
        self.asked: list[tuple[int, int]] = []

    def _search(self, queries: np.ndarray, n: int) -> Hits:
        self.asked.append((len(queries), n))
        return super()._search(queries, n)


def random_case(users: int = 30, items: int = 3000, dimension: int = 19, seed: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((items, dimension)).astype(np.float32)
    return vectors, rng.standard_normal((users, 3, dimension)).astype(np.float32), rng.random((users, 3)) < 0.8


def seen_of(histories: list[np.ndarray]) -> Seen:
    offsets = np.cumsum([0, *map(len, histories)], dtype=np.int64)
    return Seen(offsets, np.concatenate([*histories, np.empty(0)]).astype(np.int32))


def brute(vectors: np.ndarray, interests: np.ndarray, valid: np.ndarray, without: np.ndarray, n: int) -> list[int]:
    scores = (interests[valid].astype(np.float64) @ vectors.T.astype(np.float64)).max(axis=0, initial=-np.inf)
    scores[without] = -np.inf
    order = np.argsort(-scores, kind="stable")[:n]
    return order[np.isfinite(scores[order])].tolist()


@pytest.mark.parametrize("factory", ["exact", "Flat"])
def test_histories_of_any_length_are_filtered_exactly(factory: str) -> None:
    vectors, interests, valid = random_case()
    rng = np.random.default_rng(4)
    # The worst case: what was seen is what scores best, up to the whole catalog.
    best = np.argsort(-(interests.mean(axis=1) @ vectors.T), axis=1)
    histories = [best[u, :length] for u, length in enumerate(rng.choice([0, 1, 17, 300, 2000, 2990, 3000], 30))]
    pools = InterestSearch(build_index(vectors, IndexSettings(factory=factory, device="cpu")), vectors, 25)(
        interests, valid, seen_of(histories)
    )
    for user in range(30):
        rows = pools.rows[user][pools.rows[user] >= 0].tolist()
        assert rows == brute(vectors, interests[user], valid[user], histories[user], 25)


def test_one_long_history_does_not_deepen_the_search_of_the_others() -> None:
    vectors, interests, valid = random_case(items=30_000)
    valid[:] = True
    index = SpiedIndex(vectors)
    histories = [np.arange(2000)] + [np.arange(5)] * 29
    InterestSearch(index, vectors, 20)(interests, valid, seen_of(histories))
    assert index.asked[0] == (29 * 3, 20 + 16 + 16)
    assert [queries for queries, n in index.asked if n > 1000] == [3]


@pytest.mark.parametrize("over_fetch", [0, 40])
def test_every_hit_of_an_approximate_index_is_re_scored_and_a_full_pool_is_enough(monkeypatch: pytest.MonkeyPatch, over_fetch: int) -> None:
    vectors, interests, _ = random_case(dimension=16)
    # Codes of 16 bits: the index's own order is far from the true one.
    index = build_index(vectors, IndexSettings(factory="PQ4x4", device="cpu", threads=1, over_fetch=over_fetch))
    asked, search_index = [], index.search
    monkeypatch.setattr(index, "search", lambda queries, n: asked.append(n) or search_index(queries, n))
    pools = InterestSearch(index, vectors, 10)(interests, np.ones((30, 3), bool), Seen.nothing(30))
    assert asked == [10 + over_fetch]
    hits = search_index(interests.reshape(90, 16), 10 + over_fetch).rows.reshape(30, -1)
    for user in range(30):
        others = np.setdiff1d(np.arange(3000), hits[user])
        assert pools.rows[user].tolist() == brute(vectors, interests[user], np.ones(3, bool), others, 10)
        assert set(pools.rows[user].tolist()) != set(brute(vectors, interests[user], np.ones(3, bool), others[:0], 10))


def test_a_long_block_list_leaves_full_exact_lists() -> None:
    vectors, interests, valid = random_case()
    for share in (0.3, 0.95, 1.0):
        blocked = np.random.default_rng(5).random(3000) < share
        pools = InterestSearch(build_index(vectors, CPU), vectors, 30, blocked=blocked)(interests, valid, Seen.nothing(30))
        for user in range(30):
            rows = pools.rows[user][pools.rows[user] >= 0].tolist()
            assert rows == brute(vectors, interests[user], valid[user], np.flatnonzero(blocked), 30)


@pytest.mark.parametrize("left", [7, 100])
def test_where_a_filter_leaves_few_items_those_are_looked_at_and_nothing_else(monkeypatch: pytest.MonkeyPatch, left: int) -> None:
    vectors, interests, valid = random_case()
    open_rows = np.sort(np.random.default_rng(9).choice(3000, left, replace=False))
    blocked = np.ones(3000, dtype=bool)
    blocked[open_rows] = False
    looked_at, index = [], SpiedIndex(vectors)
    monkeypatch.setattr("retrieval.recall.search.scan_users", lambda *given: looked_at.append(given[-2][1]) or scan_users(*given))
    pools = InterestSearch(index, vectors, 30, blocked=blocked, threads=1)(interests, valid, seen_of([open_rows[:3]] * 30))
    assert not index.asked
    assert [each.tolist() for each in looked_at] == [open_rows.tolist()]
    for user in range(30):
        without = np.union1d(np.flatnonzero(blocked), open_rows[:3])
        assert pools.rows[user][pools.rows[user] >= 0].tolist() == brute(vectors, interests[user], valid[user], without, 30)


@pytest.mark.parametrize("factory", ["exact", "Flat"])
def test_thousands_of_equal_scores_give_the_lowest_rows(factory: str) -> None:
    vectors = np.ones((5000, 1), dtype=np.float32)
    vectors[4000] = 2.0
    index = build_index(vectors, IndexSettings(factory=factory, device="cpu"))
    pools = InterestSearch(index, vectors, 10)(np.ones((2, 1, 1), np.float32), np.ones((2, 1), bool), seen_of([np.arange(3), np.arange(0)]))
    assert pools.rows.tolist() == [[4000, 3, 4, 5, 6, 7, 8, 9, 10, 11], [4000, 0, 1, 2, 3, 4, 5, 6, 7, 8]]


@pytest.mark.parametrize("size", [0.0, 1.0])
def test_which_of_the_equals_an_index_returns_does_not_matter(size: float) -> None:
    vectors = np.full((500, 3), size, dtype=np.float32)
    pools = InterestSearch(FloatIndex(vectors), vectors, 4)(np.full((1, 2, 3), size, np.float32), np.ones((1, 2), bool), Seen.nothing(1))
    assert pools.rows.tolist() == [[0, 1, 2, 3]]


def test_near_ties_are_decided_by_the_fixed_sum_and_not_by_the_matrix_product() -> None:
    rng = np.random.default_rng(6)
    base = rng.standard_normal(64)
    # Two thousand items whose scores differ by less than what float32 products round away.
    vectors = (base + rng.standard_normal((2000, 64)) * 1e-7).astype(np.float32)
    interests = (base + rng.standard_normal((50, 2, 64)) * 1e-6).astype(np.float32)
    valid = np.ones((50, 2), dtype=bool)
    whole, settings = [], [("exact", 1), ("exact", 2), ("Flat", 1), ("Flat", 2)]
    for factory, threads in settings:
        index = build_index(vectors, IndexSettings(factory=factory, device="cpu", threads=threads, over_fetch=0))
        search = InterestSearch(index, vectors, 30, threads=threads)
        parts = [search(interests[s : s + 7], valid[s : s + 7], Seen.nothing(len(interests[s : s + 7]))) for s in range(0, 50, 7)]
        whole.append((search(interests, valid, Seen.nothing(50)), parts))
    expected = whole[0][0]
    for pools, parts in whole:
        for name in ("rows", "scores", "interest"):
            assert getattr(pools, name).tobytes() == getattr(expected, name).tobytes()
            assert np.concatenate([getattr(part, name) for part in parts]).tobytes() == getattr(expected, name).tobytes()


def test_the_fixed_sum_is_the_inner_product() -> None:
    rng = np.random.default_rng(7)
    for dimension in (1, 3, 7, 8, 9, 64, 131):
        left, right = rng.standard_normal(dimension).astype(np.float32), rng.standard_normal(dimension)
        assert dot(left, right) == pytest.approx(float(left.astype(np.float64) @ right), rel=1e-12)


def test_equal_interests_give_the_lowest_one_and_no_duplicates() -> None:
    vectors = random_case()[0]
    interests = np.repeat(np.random.default_rng(8).standard_normal((4, 1, 19)).astype(np.float32), 3, axis=1)
    pools = InterestSearch(build_index(vectors, CPU), vectors, 50)(interests, np.ones((4, 3), bool), Seen.nothing(4))
    assert (pools.interest == 0).all()
    assert all(len(set(rows)) == 50 for rows in pools.rows.tolist())


def test_no_valid_interest_and_no_user_give_empty_pools() -> None:
    vectors, interests, valid = random_case()
    search = InterestSearch(build_index(vectors, CPU), vectors, 5)
    pools = search(interests, np.zeros_like(valid), Seen.nothing(30))
    assert (pools.rows == -1).all()
    assert np.isneginf(pools.scores).all()
    assert (pools.interest == -1).all()
    assert search(interests[:0], valid[:0], Seen.nothing(0)).rows.shape == (0, 5)


def test_memory_mapped_vectors_give_the_same(tmp_path: Path) -> None:
    vectors, interests, valid = random_case()
    np.save(tmp_path / "items.npy", vectors)
    mapped = np.load(tmp_path / "items.npy", mmap_mode="r")
    found = InterestSearch(build_index(mapped, CPU), mapped, 12)(interests, valid, Seen.nothing(30))
    wanted = InterestSearch(build_index(vectors, CPU), vectors, 12)(interests, valid, Seen.nothing(30))
    assert found.rows.tobytes() == wanted.rows.tobytes()


def test_histories_of_either_integer_width_are_understood() -> None:
    vectors, interests, valid = random_case()
    search = InterestSearch(build_index(vectors, CPU), vectors, 12)
    seen = seen_of([np.arange(40)] * 30)
    wide = Seen(seen.offsets, seen.items.astype(np.int64))
    assert search(interests, valid, seen).rows.tobytes() == search(interests, valid, wide).rows.tobytes()


def pools_with(vectors: np.ndarray, interests: np.ndarray, seen: Seen | None = None) -> Pools:
    valid = np.ones(interests.shape[:2], dtype=bool)
    return InterestSearch(build_index(vectors, CPU), vectors, 5)(interests, valid, seen or Seen.nothing(len(interests)))


def test_our_own_exact_index_is_searched_once_for_all_interests(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, interests, valid = random_case()
    index = build_index(vectors, IndexSettings(factory="exact", threads=1))
    monkeypatch.setattr(index, "search", lambda *_: pytest.fail("one search an interest"))
    histories = [np.arange(user * 10) for user in range(30)]
    blocked = np.arange(3000) % 3 == 0
    found = InterestSearch(index, vectors, 40, blocked=blocked)(interests, valid, seen_of(histories))
    wanted = InterestSearch(build_index(vectors, CPU), vectors, 40, blocked=blocked)(interests, valid, seen_of(histories))
    for name in ("rows", "scores", "interest"):
        assert getattr(found, name).tobytes() == getattr(wanted, name).tobytes()


def test_refusals() -> None:
    vectors, interests, _ = random_case(users=2)
    broken = interests.copy()
    broken[1, 2, 3] = np.nan
    with pytest.raises(IntegrityError, match="interests"):
        pools_with(vectors, broken)
    with pytest.raises(IntegrityError, match="overflow"):
        pools_with(vectors, interests * np.float32(3e37))
    with pytest.raises(IntegrityError, match="no item"):
        pools_with(vectors, interests, seen_of([np.array([3000]), np.array([0])]))
    with pytest.raises(UsageError, match="do not fit"):
        pools_with(vectors, interests[:, :, :7])
    with pytest.raises(UsageError, match="do not fit"):
        pools_with(vectors, interests, Seen.nothing(3))


def test_vectors_of_another_catalog_are_refused() -> None:
    vectors = random_case()[0]
    index: AbstractIndex = build_index(vectors, CPU)
    with pytest.raises(IntegrityError, match="belong"):
        InterestSearch(index, vectors[:-1], 5)
    with pytest.raises(IntegrityError, match="belong"):
        InterestSearch(index, vectors, 5, blocked=np.zeros(7, dtype=bool))


def test_memory_is_bounded_by_the_batch_and_not_by_its_longest_history(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.recall.search._MOST_HITS", 1 << 14)
    vectors, interests, valid = random_case(users=200, items=20_000, dimension=4)
    search = InterestSearch(build_index(vectors, CPU), vectors, 10)
    seen = seen_of([np.arange(1500)] * 200)
    search(interests, valid, seen)
    tracemalloc.start()
    search(interests, valid, seen)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All at once would hold 600 queries of 2,074 hits, 12 bytes each, several times over.
    assert peak < 600 * 2074 * 12


@pytest.mark.parametrize("factory", ["IVF8,Flat", "HNSW16", "IVF8,SQ8"])
@pytest.mark.parametrize("share", [0.2, 0.9])
def test_an_index_that_leaves_out_what_is_blocked_is_asked_for_no_more(factory: str, share: float) -> None:
    pytest.importorskip("faiss", reason="the extra `cpu` is not installed")
    vectors, interests, valid = random_case()
    index = build_index(vectors, IndexSettings(factory=factory, nprobe=8, ef_search=512, device="cpu"))
    blocked = np.random.default_rng(5).random(len(vectors)) < share
    masked = index.without(blocked)
    assert masked is not index
    hits = masked.search(interests[:, 0], 40)
    assert not blocked[hits.rows[hits.rows >= 0]].any()
    # The index itself goes on answering all rows.
    assert blocked[index.search(interests[:, 0], 40).rows].any()
    pools = InterestSearch(index, vectors, 30, blocked=blocked)(interests, valid, Seen.nothing(30))
    expected = InterestSearch(build_index(vectors, CPU), vectors, 30, blocked=blocked)(interests, valid, Seen.nothing(30))
    assert (pools.rows == expected.rows).mean() > 0.9
    assert (pools.rows[valid.any(axis=1)] >= 0).all()


def test_where_nothing_is_blocked_the_index_is_the_same() -> None:
    pytest.importorskip("faiss", reason="the extra `cpu` is not installed")
    vectors, _, _ = random_case()
    index = build_index(vectors, IndexSettings(factory="IVF8,Flat", device="cpu"))
    assert index.without(np.zeros(len(vectors), dtype=bool)) is index
