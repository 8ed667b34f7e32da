"""Exact search of users with every engine that this machine has, against a full sort of float64 scores."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.index.exact import cuda
from retrieval.index.exact.cuda import CudaEngine
from retrieval.index.exact.engines import AbstractEngine, BlockedEngine
from retrieval.index.exact.index import ExactIndex
from retrieval.index.exact.kernels import BLOCK
from retrieval.index.exact.lowering.items import OrderedItems
from retrieval.index.exact.search import ExactSearch
from retrieval.index.exact.table import ENGINES as ALL_ENGINES
from retrieval.index.kernels import dot
from retrieval.index.pools import Pools, Seen
from retrieval.index.settings import IndexSettings


class GpuWithoutGpu(CudaEngine):
    """What runs on a GPU, on torch's CPU device; few hits come back at once, so that blocks are halved."""

    name = "cuda-on-cpu"
    place = "cpu"

    @classmethod
    def is_available(cls) -> bool:
        return True

    def _fits(self) -> bool:
        return False


ENGINES = {**ALL_ENGINES, GpuWithoutGpu.name: GpuWithoutGpu}


@pytest.fixture(autouse=True, scope="module")
def few_hits():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "_HITS", 3000)
        yield


def engine_named(name: str, vectors: np.ndarray) -> AbstractEngine:
    if not ENGINES[name].is_available():
        pytest.skip(f"this machine cannot run {name}")
    return ENGINES[name](OrderedItems.of(vectors, 1), 1)


@dataclass
class Case:
    vectors: np.ndarray
    interests: np.ndarray
    valid: np.ndarray
    histories: list[np.ndarray]
    blocked: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray, interests: np.ndarray, **changes) -> "Case":
        users, heads = interests.shape[:2]
        plain = {
            "valid": np.ones((users, heads), bool),
            "histories": [np.empty(0, np.int32)] * users,
            "blocked": np.zeros(len(vectors), bool),
        }
        return cls(vectors.astype(np.float32), interests.astype(np.float32), **{**plain, **changes})

    @property
    def seen(self) -> Seen:
        offsets = np.cumsum([0, *map(len, self.histories)], dtype=np.int64)
        return Seen(offsets, np.concatenate([*self.histories, np.empty(0)]).astype(np.int32))

    def found(self, name: str, n: int, threads: int = 1) -> Pools:
        search = ExactSearch(engine_named(name, self.vectors), self.blocked, threads)
        return search(self.interests.astype(np.float64), self.valid, self.seen, n)

    def wanted(self, n: int) -> Pools:
        """By the definition: every float64 sum, rounded, the largest over the interests, sorted by (-score, row)."""
        pools = Pools.empty(len(self.interests), n)
        for user, interests in enumerate(self.interests.astype(np.float64)):
            scores = np.array([[dot(v, q) for v in self.vectors] for q in interests]).astype(np.float32)
            scores[~self.valid[user]] = -np.inf
            closed = self.blocked.copy()
            closed[self.histories[user]] = True
            if not self.valid[user].any():
                closed[:] = True
            best = scores.max(axis=0)
            rows = np.array([row for row in np.argsort(-best, kind="stable") if not closed[row]], dtype=np.int64)[:n]
            pools.rows[user, : len(rows)], pools.scores[user, : len(rows)] = rows, best[rows]
            pools.interest[user, : len(rows)] = scores.argmax(axis=0)[rows]
        return pools


def assert_same(found: Pools, wanted: Pools) -> None:
    assert np.array_equal(found.rows, wanted.rows)
    assert found.scores.tobytes() == wanted.scores.tobytes() or np.array_equal(found.scores, wanted.scores)
    assert np.array_equal(found.interest, wanted.interest)


def spread(random: np.random.Generator, shape: tuple[int, ...], kind: str) -> np.ndarray:
    values = random.standard_normal(shape)
    if kind == "few":
        return random.integers(-1, 2, shape)
    if kind == "near":
        return np.ones(shape) + values * 1e-6
    if kind == "huge":
        return values * 1e17
    if kind == "tiny":
        return values * 1e-30
    if kind == "norms":
        return values * 10.0 ** random.uniform(-12, 4, (*shape[:-1], 1))
    if kind == "components":
        return values * 10.0 ** random.uniform(-20, 8, shape)
    if kind == "bits":
        # Halfway between two numbers of bfloat16, where its rounding errs most.
        return random.choice([-1, 1], shape) * (1 + (2 * random.integers(0, 64, shape) + 1) / 256)
    return values


@pytest.mark.parametrize("name", ENGINES)
@given(
    seed=st.integers(0, 2**32),
    kinds=st.tuples(*[st.sampled_from(["plain", "few", "near", "huge", "tiny", "norms", "components", "bits", "zero"])] * 2),
    items=st.sampled_from([1, 2, 70, 500]),
    n=st.sampled_from([1, 3, 40, 600]),
    heads=st.integers(1, 6),
    dimension=st.sampled_from([1, 2, 7, 16, 33, 64]),
    blocked_share=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    threads=st.sampled_from([1, 2]),
)
def test_equals_the_definition(name, seed, kinds, items, n, heads, dimension, blocked_share, threads):
    random = np.random.default_rng(seed)
    vectors, interests = spread(random, (items, dimension), kinds[0]), spread(random, (7, heads, dimension), kinds[1])
    vectors *= kinds[0] != "zero"
    interests[:3] *= kinds[1] != "zero"
    copies = random.integers(0, items, items // 3)
    vectors[random.integers(0, items, len(copies))] = vectors[copies]
    valid = random.random((7, heads)) < 0.7
    interests = np.where(valid[:, :, None], interests, 7.0)
    lengths = random.choice([0, 1, items // 2, items, 2 * items], 7)
    case = Case.of(
        vectors,
        interests,
        valid=valid,
        histories=[random.integers(0, items, length) for length in lengths],
        blocked=random.random(items) < blocked_share,
    )
    assert_same(case.found(name, n, threads), case.wanted(n))


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("kind", ["plain", "few", "near", "norms", "bits", "zero"])
def test_many_blocks_and_full_buffers_lose_nothing(name, kind):
    # More near-equal items than a buffer holds: they are scored on the way, again and again.
    random = np.random.default_rng(1)
    vectors = spread(random, (3 * BLOCK + 17, 24), kind) * (kind != "zero")
    interests = spread(random, (40, 2, 24), kind)
    histories = [random.integers(0, len(vectors), 300) for _ in range(40)]
    case = Case.of(vectors, interests[:4], histories=histories[:4])
    assert_same(case.found(name, 25), case.wanted(25))
    whole = Case.of(vectors, interests, histories=histories)
    assert np.array_equal(whole.found(name, 25).rows[:4], case.wanted(25).rows)


@pytest.mark.parametrize("name", ENGINES)
def test_negative_scores_only(name):
    random = np.random.default_rng(2)
    case = Case.of(-np.abs(random.standard_normal((2500, 8))), np.abs(random.standard_normal((5, 1, 8))))
    assert_same(case.found(name, 60), case.wanted(60))


def test_every_engine_gives_the_same_bytes():
    random = np.random.default_rng(3)
    case = Case.of(
        random.standard_normal((9000, 20)) * random.uniform(0.3, 3, (9000, 1)),
        random.standard_normal((300, 4, 20)),
        valid=random.random((300, 4)) < 0.6,
        histories=[random.integers(0, 9000, length) for length in random.integers(0, 400, 300)],
        blocked=random.random(9000) < 0.2,
    )
    pools = [case.found(name, 50, threads) for name, engine in ENGINES.items() if engine.is_available() for threads in (1, 3)]
    assert len({each.rows.tobytes() + each.scores.tobytes() + each.interest.tobytes() for each in pools}) == 1


@pytest.mark.parametrize("name", ENGINES)
def test_the_same_bytes_whatever_the_batch_and_the_memory(name):
    random = np.random.default_rng(6)
    vectors = random.standard_normal((9000, 20)).astype(np.float32)
    interests = random.standard_normal((700, 2, 20)).astype(np.float32).astype(np.float64)
    valid, found = random.random((700, 2)) < 0.8, set()
    for block_mb, batch, threads in ((1, 700, 1), (3, 700, 2), (1, 1, 1), (2, 33, 1)):
        index = ExactIndex(vectors, IndexSettings(factory="exact", threads=threads, block_mb=block_mb))
        index.engine = ENGINES[name](index._items, block_mb) if ENGINES[name].is_available() else pytest.skip(f"no {name} here")
        search = index.search_users(np.zeros(9000, bool), threads)
        starts = range(0, 700 if batch > 1 else 40, batch)
        pools = [search(interests[s : s + batch], valid[s : s + batch], Seen.nothing(len(valid[s : s + batch])), 30) for s in starts]
        found.add(
            b"".join(np.concatenate([getattr(pool, part) for pool in pools])[:40].tobytes() for part in ("rows", "scores", "interest"))
        )
    assert len(found) == 1


@pytest.mark.parametrize("name", ENGINES)
def test_an_item_that_low_precision_puts_last_is_found(name):
    # All items are one number in bfloat16; the winners differ in bits that it does not have.
    vectors = np.full((5000, 32), 1.0)
    vectors[np.arange(100, 5000, 490), 0] += 2.0**-9
    case = Case.of(vectors, np.ones((2, 1, 32)))
    assert case.found(name, 10).rows[0].tolist() == list(range(100, 5000, 490))


@pytest.mark.parametrize("name", [name for name, engine in ENGINES.items() if issubclass(engine, BlockedEngine)])
def test_the_search_ends_where_norms_are_too_small(name, monkeypatch):
    random = np.random.default_rng(4)
    vectors = random.standard_normal((40 * BLOCK, 16))
    vectors[BLOCK:] *= 1e-3
    engine = engine_named(name, vectors.astype(np.float32))
    looked_at = []
    block = engine.lowered.block
    monkeypatch.setattr(engine.lowered, "block", lambda first, last: looked_at.append(last) or block(first, last))
    search = ExactSearch(engine, np.zeros(len(vectors), bool), 1)
    search(random.standard_normal((64, 1, 16)), np.ones((64, 1), bool), Seen.nothing(64), 10)
    assert max(looked_at, default=0) <= 20 * BLOCK


def test_candidates_and_products_stay_within_their_memory():
    vectors = np.random.default_rng(5).standard_normal((4000, 8)).astype(np.float32)
    search = ExactIndex(vectors, IndexSettings(factory="exact", threads=1, block_mb=1)).search_users(np.zeros(4000, bool), 1)
    for n in (1, 100, 4000):
        users = search._users(1, n)
        assert users == 1 or users * (2 * n + 256) * 12 <= 4 << 20
