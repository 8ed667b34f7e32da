"""A library's threads while users are searched for: one each in every worker, and as many as before afterwards."""

import threading

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from retrieval.index.exact.engines import BlockedEngine, NumpyEngine, TorchEngine
from retrieval.index.exact.lowering.items import OrderedItems
from retrieval.index.exact.search import ExactSearch
from retrieval.index.pools import Seen

VECTORS = np.random.default_rng(0).standard_normal((400, 8)).astype(np.float32)
INTERESTS = np.random.default_rng(1).standard_normal((40, 1, 8)).astype(np.float32).astype(np.float64)


def threads_of_blas() -> int:
    return max(one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas")


ENGINES = {NumpyEngine: threads_of_blas, TorchEngine: torch.get_num_threads}


@pytest.fixture(autouse=True)
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with threadpool_limits(2, user_api="blas"):
        yield
    torch.set_num_threads(before)


def engine_of(kind: type[BlockedEngine], monkeypatch: pytest.MonkeyPatch) -> BlockedEngine:
    # Torch imitates bfloat16 where the processor lacks it: slow, and good enough for few users.
    monkeypatch.setattr(kind, "is_available", classmethod(lambda _: True))
    return kind(OrderedItems.of(VECTORS, 1), 1)


def search(engine: BlockedEngine, threads: int) -> None:
    everything = np.zeros(len(VECTORS), dtype=bool)
    ExactSearch(engine, everything, threads)(INTERESTS, np.ones((len(INTERESTS), 1), dtype=bool), Seen.nothing(len(INTERESTS)), 5)


@pytest.mark.parametrize("kind", ENGINES)
def test_limits_that_overlap_leave_what_they_found(kind, monkeypatch):
    engine, threads = engine_of(kind, monkeypatch), ENGINES[kind]
    first, second = engine.one_thread(), engine.one_thread()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert threads() == 2


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("kind", ENGINES)
def test_every_worker_multiplies_alone_and_the_limit_goes_with_the_search(kind, workers, monkeypatch):
    seen, meet = [], threading.Barrier(workers, timeout=20)
    product = kind.product

    def watched(self, *arguments):
        # All of them at once: the last to leave must not keep what the first had set.
        meet.wait()
        seen.append(ENGINES[kind]())
        product(self, *arguments)

    engine = engine_of(kind, monkeypatch)
    monkeypatch.setattr(kind, "product", watched)
    search(engine, workers)
    assert len(seen) >= workers
    assert set(seen) == {1}
    assert ENGINES[kind]() == 2


@pytest.mark.parametrize("kind", ENGINES)
def test_a_search_that_ends_leaves_the_limit_to_the_one_that_goes_on(kind, monkeypatch):
    seen, product = [], kind.product
    other = threading.Thread(target=lambda: search(engine, 1))

    def watched(self, *arguments):
        if threading.current_thread() is not other:
            if not seen:
                other.start()
                other.join(20)
            seen.append(ENGINES[kind]())
        product(self, *arguments)

    engine = engine_of(kind, monkeypatch)
    monkeypatch.setattr(kind, "product", watched)
    search(engine, 1)
    assert not other.is_alive()
    assert set(seen) == {1}
    assert ENGINES[kind]() == 2
