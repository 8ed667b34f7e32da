"""Rows that come and go, indexes that stay in their file, and searches beside changes."""

import threading
import time

import numpy as np
import pytest

from retrieval.core.errors import UsageError
from retrieval.index.faiss.build import build_faiss, read_faiss
from retrieval.index.guard import SearchGuard
from retrieval.index.settings import IndexSettings

DIMENSION = 16
VECTORS = np.random.default_rng(0).normal(size=(900, DIMENSION)).astype(np.float32)
QUERIES = np.random.default_rng(1).normal(size=(30, DIMENSION)).astype(np.float32)
# Every list and the whole queue are searched: what is found depends on the rows alone.
KINDS = ["Flat", "IVF8,Flat", "IVF8,SQ8", "HNSW32", "NSG16", "IVF8,PQ8x4fs,RFlat", "IVF8,RaBitQ,RFlat", "PCAR16,IVF8,Flat", "SQ8,RFlat"]


def settings_for(factory: str, **changes) -> IndexSettings:
    base = {"device": "cpu", "threads": 1, "nprobe": 8, "ef_search": 900, "refine_factor": 30.0}
    return IndexSettings(factory=factory, **{**base, **changes})


def exact(vectors: np.ndarray, allowed: np.ndarray, n: int) -> np.ndarray:
    scores = QUERIES @ vectors.T
    scores[:, ~allowed] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :n]


def overlap(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found.tolist(), wanted.tolist(), strict=True)]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_removed_row_is_never_found_and_its_place_is_taken(kind, tmp_path):
    index = build_faiss(VECTORS, settings_for(kind))
    dead = exact(VECTORS, np.ones(900, dtype=bool), 5).ravel()
    index.remove(dead)
    allowed = ~np.isin(np.arange(900), dead)
    index.write(tmp_path / "index")
    for each in (index, read_faiss(tmp_path / "index", settings_for(kind))):
        found = each.search(QUERIES, 10).rows
        assert (found >= 0).all()
        assert not np.isin(found, dead).any()
        assert overlap(found, exact(VECTORS, allowed, 10)) > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_where_almost_all_are_dead_the_living_are_found_and_the_rest_is_empty(kind):
    index = build_faiss(VECTORS, settings_for(kind))
    living = np.array([3, 400, 899])
    index.remove(np.setdiff1d(np.arange(900), living))
    hits = index.search(QUERIES, 6)
    assert np.array_equal(np.sort(hits.rows[:, :3]), np.tile(living, (30, 1)))
    assert (hits.rows[:, 3:] == -1).all()
    assert np.isneginf(hits.scores[:, 3:]).all()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "NSG16"])
def test_added_rows_are_found_under_the_numbers_they_got(kind, tmp_path):
    index = build_faiss(VECTORS[:700], settings_for(kind))
    assert np.array_equal(index.add(VECTORS[700:]), np.arange(700, 900))
    index.write(tmp_path / "index")
    for each in (index, read_faiss(tmp_path / "index", settings_for(kind))):
        assert each.count == 900
        assert overlap(each.search(QUERIES, 10).rows, exact(VECTORS, np.ones(900, dtype=bool), 10)) > 0.9


def test_an_nsg_graph_takes_nothing_more():
    index = build_faiss(VECTORS, settings_for("NSG16"))
    with pytest.raises(UsageError, match="takes no items after it is built"):
        index.add(VECTORS[:3])
    assert index.search(QUERIES, 5).rows.max() < 900


def test_the_rebuild_rule_counts_what_came_and_went_across_files(tmp_path):
    settings = settings_for("IVF8,Flat", rebuild_share=0.2)
    index = build_faiss(VECTORS[:800], settings)
    index.add(VECTORS[800:])
    index.remove(np.arange(60))
    assert index.rebuild_reason == ""
    index.remove(np.array([60]))
    assert "61 rows removed from and 100 added to 800" in index.rebuild_reason
    index.write(tmp_path / "index")
    assert read_faiss(tmp_path / "index", settings).rebuild_reason == index.rebuild_reason


@pytest.mark.parametrize("row", [-1, 900])
def test_a_row_that_is_not_there_cannot_be_removed(row):
    index = build_faiss(VECTORS, settings_for("Flat"))
    with pytest.raises(UsageError, match=f"row {row} cannot be removed"):
        index.remove(np.array([5, row]))
    assert 5 in index.search(VECTORS[5:6] * 9, 900).rows


def test_vectors_of_another_dimension_cannot_be_added():
    with pytest.raises(UsageError, match="item vectors have 3 dimensions"):
        build_faiss(VECTORS, settings_for("Flat")).add(VECTORS[:, :3])


@pytest.mark.parametrize("kind", [*KINDS, "OPQ8,IVF8,PQ8x4fs,RFlat"])
def test_an_index_left_in_its_file_answers_the_same_and_takes_nothing(kind, tmp_path):
    settings = settings_for(kind)
    index = build_faiss(VECTORS, settings)
    index.write(tmp_path / "index")
    mapped = read_faiss(tmp_path / "index", settings.model_copy(update={"mmap": True}))
    before, after = index.search(QUERIES, 20), mapped.search(QUERIES, 20)
    assert before.rows.tobytes() == after.rows.tobytes()
    assert before.scores.tobytes() == after.scores.tobytes()
    with pytest.raises(UsageError, match="memory-mapped"):
        mapped.add(VECTORS[:1])
    mapped.remove(before.rows[:, 0])
    assert not np.isin(mapped.search(QUERIES, 5).rows, before.rows[:, 0]).any()


def test_other_settings_share_the_index_and_disturb_nobody():
    index = build_faiss(VECTORS, settings_for("IVF8,Flat", nprobe=1))
    before = index.search(QUERIES, 10)
    wider = index.searched_with(settings_for("IVF8,Flat", nprobe=8))
    assert overlap(wider.search(QUERIES, 10).rows, exact(VECTORS, np.ones(900, dtype=bool), 10)) == 1.0
    assert index.search(QUERIES, 10).rows.tobytes() == before.rows.tobytes() != wider.search(QUERIES, 10).rows.tobytes()


def test_a_change_that_is_interrupted_while_it_waits_holds_nobody_up(monkeypatch):
    guard, done = SearchGuard(), []

    def interrupted(_predicate):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(guard._turn, "wait_for", interrupted, raising=False)
        with pytest.raises(KeyboardInterrupt), guard.changing():
            pass
    search = threading.Thread(target=lambda: [done.append(1) for _ in [guard.searching().__enter__()]], daemon=True)
    search.start()
    search.join(timeout=5)
    assert done == [1]


def test_searches_run_side_by_side_and_a_change_runs_alone():
    guard, running, seen = SearchGuard(), [], []
    both = threading.Barrier(2, timeout=5)

    def search():
        with guard.searching():
            running.append("search")
            both.wait()
            time.sleep(0.05)
            running.remove("search")

    def change():
        with guard.changing():
            seen.append(list(running))

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    while len(running) < 2 and any(thread.is_alive() for thread in threads):
        time.sleep(0.001)
    threads.append(threading.Thread(target=change))
    threads[-1].start()
    for thread in threads:
        thread.join(timeout=10)
    assert seen == [[]]


def test_searches_on_a_gpu_run_one_at_a_time():
    guard, most, running = SearchGuard(alone=True), [], []

    def search():
        with guard.searching():
            running.append(1)
            most.append(len(running))
            time.sleep(0.01)
            running.pop()

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert most == [1, 1, 1, 1]


def test_an_index_that_grows_under_searches_answers_them_all():
    index = build_faiss(VECTORS[:100], settings_for("IVF8,Flat"))
    wrong, stop = [], threading.Event()

    def search():
        while not stop.is_set():
            hits = index.search(QUERIES, 5)
            wrong.extend(hits.rows[(hits.rows < 0) | (hits.rows >= index.count)])

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for first in range(100, 900, 20):
        index.add(VECTORS[first : first + 20])
    stop.set()
    for thread in threads:
        thread.join(timeout=20)
    assert wrong == []
    assert index.count == 900
