"""A choice on planted data: exact where it wins, lists where memory forbids exact, and nothing that breaks a limit."""

import sys

import numpy as np
import pytest

from retrieval.core.errors import ResourceError
from retrieval.index.choice import choose as module
from retrieval.index.choice.choose import Choice, choose
from retrieval.index.choice.settings import ChoiceSettings
from retrieval.index.exact.processor import has_gpu
from retrieval.index.faiss.library import faiss_library, gpu_count
from retrieval.index.settings import IndexSettings
from retrieval.stages.index_choice import make_search

random = np.random.default_rng(0)
CENTRES = random.normal(size=(40, 16))
VECTORS = (CENTRES[random.integers(0, 40, 6000)] + 0.3 * random.normal(size=(6000, 16))).astype(np.float32)
INTERESTS = (CENTRES[random.integers(0, 40, (80, 2))] + 0.3 * random.normal(size=(80, 2, 16))).astype(np.float32)
USERS = (INTERESTS, np.ones((80, 2), dtype=bool))


def chosen(vectors: np.ndarray = VECTORS, device: str = "cpu", **limits) -> Choice:
    limits = ChoiceSettings(**{"target_recall": 0.9, "n": 10, **limits})
    return choose(vectors, USERS, IndexSettings(device=device, threads=1, choose=limits), make_search(10, 1))


def test_without_limits_the_cheapest_that_holds_is_chosen():
    choice = chosen()
    held = [point for point in choice.points if point.verdict in ("holds", "chosen")]
    assert choice.held
    assert choice.point.lower >= 0.9
    assert choice.point.seconds == min(point.seconds for point in held)
    assert "exact" in {point.factory for point in held}
    assert [point.factory for point in choice.points if point.verdict == "chosen"] == [choice.settings.factory]


def test_a_memory_that_exact_search_exceeds_leaves_codes_that_hold():
    choice = chosen(max_memory=6000 * 30)
    assert choice.settings.factory.endswith("SQ8")
    assert choice.held
    assert choice.point.memory <= 6000 * 30
    assert {point.verdict for point in choice.points if point.factory in ("exact", "HNSW32")} == {"over max_memory"}
    found = choice.index.search(INTERESTS[:, 0], 5)
    assert (found.rows >= 0).all()


def test_where_nothing_fits_it_says_what_would():
    with pytest.raises(ResourceError, match=r"no index fits 0 MB; expected at least"):
        chosen(max_memory=100)


def test_a_latency_that_nothing_keeps_is_a_choice_that_does_not_hold():
    choice = chosen(max_latency="0.001us")
    assert not choice.held
    assert choice.point.verdict == "over max_latency"


def test_lists_visit_no_more_than_the_target_needs(monkeypatch):
    # Exact search out of the way and estimates that never object: every code is built.
    monkeypatch.setattr(module, "_UNSURE", 0.0)
    monkeypatch.setattr(module, "_SURE", 0.0)
    choice = chosen(max_memory=6000 * 84)
    lists = [point for point in choice.points if point.factory.startswith("IVF") and point.recall is not None]
    assert {point.factory.partition(",")[2] for point in lists} >= {"Flat", "SQ8", "RaBitQ,RFlat", "PQ8x4fs,RFlat"}
    for point in lists:
        assert point.lower >= 0.9
        fewer = choice.settings.model_copy(update={"factory": point.factory, "nprobe": max(1, point.nprobe - 1)})
        if point.factory.endswith(",Flat") and point.nprobe > 1:
            index = module.build_faiss(VECTORS, fewer)
            judge = module.Judge(module.oracle(VECTORS, fewer), *USERS, 10)
            assert judge.finding(make_search(10, 1)(index, VECTORS)).lower < 0.9


def test_vectors_that_forbid_a_graph_are_said_to(monkeypatch):
    long = VECTORS * np.where(np.arange(6000) % 40 == 0, 6.0, 1.0)[:, None].astype(np.float32)
    choice = chosen(long)
    (graph,) = [point for point in choice.points if point.factory == "HNSW32"]
    assert graph.verdict.startswith("vetoed: norms spread")


def test_a_graph_is_built_and_tuned_where_nothing_is_cheaper(monkeypatch):
    monkeypatch.setattr(module._Chooser, "try_exact", lambda self: None)
    monkeypatch.setattr(module._Chooser, "climb", lambda self: None)
    choice = chosen(VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True))
    assert choice.settings.factory == "HNSW32"
    assert choice.held


def test_small_catalogs_are_searched_exactly():
    choice = chosen(VECTORS[:300])
    assert choice.settings.factory == "exact"
    assert len(choice.points) == 1


@pytest.fixture
def _without_faiss(monkeypatch):
    faiss_library.cache_clear()
    monkeypatch.setitem(sys.modules, "faiss", None)
    yield
    faiss_library.cache_clear()


@pytest.mark.usefixtures("_without_faiss")
@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_without_faiss_exact_search_is_chosen(device):
    choice = chosen(device=device)
    assert (choice.settings.factory, choice.held, len(choice.points)) == ("exact", True, 1)


@pytest.mark.usefixtures("_without_faiss")
def test_without_faiss_a_memory_that_exact_search_exceeds_says_what_is_missing():
    with pytest.raises(ResourceError, match=r"no index fits 0 MB.*install FAISS"):
        chosen(max_memory=6000 * 30)


@pytest.mark.parametrize(
    ("prices", "tried", "goes_on_below"),
    [
        ({2048: 5.0, 4096: 6.0}, [2048, 4096], True),
        ({2048: 5.0, 4096: 4.0, 8192: 4.5}, [2048, 4096, 8192], False),
        ({2048: 5.0, 4096: 4.0, 8192: 3.0, 16384: 3.5}, [2048, 4096, 8192, 16384], False),
    ],
)
def test_fewer_lists_are_tried_only_where_more_never_paid(prices, tried, goes_on_below):
    chooser, at = module._Chooser.__new__(module._Chooser), []
    chooser.vectors, chooser.best = np.empty((10_000_000, 1), dtype=np.float32), None
    chooser._cheapest = lambda codes, lists, scanned: 0.0
    chooser._at = lambda lists, codes: at.append(lists) or (prices[lists], 100.0)
    first = chooser._steps(2048, 2.0, [], (np.inf, 0.0))
    assert at == tried
    assert first == ((5.0, 100.0) if goes_on_below else None)


@pytest.mark.skipif(has_gpu() or gpu_count() > 0, reason="this machine has a GPU")
def test_a_gpu_that_is_insisted_on_and_not_there_is_said_to_be_missing():
    with pytest.raises(ResourceError, match=r"index.device: no index can be built: torch sees no GPU.*device = 'auto'"):
        chosen(device="gpu")
