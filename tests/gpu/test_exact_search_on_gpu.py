"""Exact search on a GPU gives the bytes of exact search on the CPU; skipped where there is none."""

import numpy as np
import pytest
import torch

from retrieval.index.exact.cuda import CudaEngine
from retrieval.index.exact.index import ExactIndex
from retrieval.index.pools import Seen
from retrieval.index.settings import IndexSettings

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not CudaEngine.is_available(), reason="torch sees no CUDA device with bfloat16")]
USERS, ITEMS = 300, 50_000


def vectors_of(kind: str) -> np.ndarray:
    random = np.random.default_rng(0)
    vectors = random.standard_normal((ITEMS, 48)).astype(np.float32)
    if kind == "norms":
        vectors *= 10.0 ** random.uniform(-9, 4, (ITEMS, 1)).astype(np.float32)
    if kind == "ties":
        vectors = random.integers(-1, 2, (ITEMS, 48)).astype(np.float32)
    if kind == "zero":
        vectors[:] = 0.0
    return vectors


@pytest.mark.parametrize("kind", ["plain", "norms", "ties", "zero"])
@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("threads", [1, 3])
def test_ids_and_scores_are_those_of_the_cpu(kind, heads, threads) -> None:
    random = np.random.default_rng(1)
    interests = random.standard_normal((USERS, heads, 48)).astype(np.float32).astype(np.float64)
    valid, blocked = random.random((USERS, heads)) < 0.8, random.random(ITEMS) < 0.1
    seen = Seen(np.arange(USERS + 1) * 40, random.integers(0, ITEMS, USERS * 40).astype(np.int32))
    results = set()
    for engine in ("cuda", "numpy"):
        index = ExactIndex(vectors_of(kind), IndexSettings(factory="exact", engine=engine, threads=threads))
        pools = index.search_users(blocked, threads)(interests, valid, seen, 100)
        results.add(pools.rows.tobytes() + pools.scores.tobytes() + pools.interest.tobytes())
    assert len(results) == 1


def test_items_that_do_not_stay_on_the_gpu_are_sent_block_by_block(monkeypatch) -> None:
    queries = np.random.default_rng(2).standard_normal((64, 48)).astype(np.float32)
    settings = IndexSettings(factory="exact", engine="cuda", threads=1)
    resident = ExactIndex(vectors_of("plain"), settings).search(queries, 50)
    monkeypatch.setattr(CudaEngine, "_fits", lambda _: False)
    sent = ExactIndex(vectors_of("plain"), settings).search(queries, 50)
    assert np.array_equal(resident.rows, sent.rows)


def test_memory_on_the_gpu_is_bounded() -> None:
    index = ExactIndex(np.zeros((400_000, 32), np.float32), IndexSettings(factory="exact", engine="cuda", threads=1))
    queries = np.ones((700, 32), np.float32)
    torch.cuda.reset_peak_memory_stats()
    index.search(queries, 20)
    assert torch.cuda.max_memory_allocated() < 1 << 30
