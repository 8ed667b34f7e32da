"""Every kind of index keeps one contract: shapes, order, fillers, refusals, and the same answers after a round trip."""

import re
from pathlib import Path

import faiss
import numpy as np
import pytest

from retrieval.core.errors import IntegrityError, ResourceError, UsageError
from retrieval.index.choice.judge import Judge
from retrieval.index.exact.index import ExactIndex
from retrieval.index.exact.processor import has_gpu
from retrieval.index.faiss import files
from retrieval.index.faiss.library import gpu_count
from retrieval.index.faiss.tombstones import Tombstones
from retrieval.index.settings import IndexSettings
from retrieval.index.table import build_index, read_index
from retrieval.stages.index_choice import make_search

COUNT, DIMENSION = 1500, 24
KINDS = [
    "exact",
    "Flat",
    "IVF16,Flat",
    "HNSW32",
    "IVF16,SQ8",
    "IVF16,PQ12x4fs,RFlat",
    "IVF16,RaBitQ,RFlat",
    "IVF16_HNSW8,Flat",
    "OPQ12,IVF16,PQ12x4fs,RFlat",
    "NSG16",
]
TRAINED_ON_MORE = ["OPQ12,IVF16,PQ12x4fs,RFlat", "NSG16"]
EXACT_KINDS = ["exact", "Flat"]
# Graphs, refiners and fast-scan codes stay on the CPU.
LIVES_ON_A_GPU = re.compile(r"Flat|IVF\d+,(Flat|SQ8)")


def settings_for(kind: str, **changes) -> IndexSettings:
    return IndexSettings(factory=kind, **{"device": "cpu", "threads": 1, "nprobe": 12, **changes})


def random_vectors(count: int = COUNT, dimension: int = DIMENSION, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return random_vectors()


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return random_vectors(40, seed=1)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def test_hits_are_typed_distinct_sorted_and_truly_scored(kind, vectors, queries):
    hits = build_index(vectors, settings_for(kind)).search(queries, 30)
    assert hits.rows.shape == hits.scores.shape == (40, 30)
    assert (hits.rows.dtype, hits.scores.dtype) == (np.int64, np.float32)
    assert (hits.rows >= 0).all()
    assert all(len(set(line)) == 30 for line in hits.rows.tolist())
    assert (np.diff(hits.scores, axis=1) <= 0).all()
    true = np.einsum("qnd,qd->qn", vectors[hits.rows], queries)
    assert np.abs(hits.scores - true).max() < (0.2 if "SQ8" in kind else 1e-4)


def test_finds_what_a_brute_force_finds(kind, vectors, queries):
    found = build_index(vectors, settings_for(kind)).search(queries, 20).rows
    wanted = np.argsort(-(queries.astype(np.float64) @ vectors.T.astype(np.float64)), axis=1, kind="stable")[:, :20]
    share = np.mean([len(set(a) & set(b)) / 20 for a, b in zip(found.tolist(), wanted.tolist(), strict=True)])
    assert share == 1.0 if kind in EXACT_KINDS else 0.8 < share <= 1.0
    if kind in EXACT_KINDS:
        assert np.array_equal(found, wanted)


def test_only_flat_and_exact_call_themselves_exact(kind, vectors):
    index = build_index(vectors, settings_for(kind))
    assert index.is_exact is (kind in EXACT_KINDS)
    assert (index.count, index.dimension, index.device) == (COUNT, DIMENSION, "cpu")


def test_past_the_last_item_there_is_minus_one(kind):
    if kind in TRAINED_ON_MORE:
        with pytest.raises(UsageError, match="cannot be trained on 40 vectors"):
            build_index(random_vectors(40), settings_for(kind))
        return
    vectors = random_vectors(40)
    hits = build_index(vectors, settings_for(kind, nprobe=16)).search(random_vectors(3, seed=2), 55)
    assert hits.rows.shape == hits.scores.shape == (3, 55)
    assert (hits.rows[:, 40:] == -1).all()
    assert np.array_equal(hits.scores == -np.inf, hits.rows == -1)
    assert (np.sort(hits.rows[:, :40]) == np.arange(40)).all()


def test_written_and_read_it_answers_the_same(kind, vectors, queries, tmp_path):
    settings, path = settings_for(kind), tmp_path / "index.faiss"
    index = build_index(vectors, settings)
    index.write(path)
    read = read_index(path, settings, count=COUNT, dimension=DIMENSION)
    before, after = index.search(queries, 25), read.search(queries, 25)
    assert type(read) is type(index)
    assert read.is_exact is index.is_exact
    assert before.rows.tobytes() == after.rows.tobytes()
    assert before.scores.tobytes() == after.scores.tobytes()


def test_the_same_vectors_give_the_same_file_whatever_the_threads(kind, vectors, tmp_path):
    contents = []
    for number, threads in enumerate((1, 2, 2)):
        path = tmp_path / str(number)
        build_index(vectors, settings_for(kind, threads=threads)).write(path)
        contents.append(path.read_bytes())
    assert contents[0] == contents[1] == contents[2]


def test_batch_and_threads_move_no_row_that_is_not_a_near_tie(kind, vectors, queries):
    index = build_index(vectors, settings_for(kind))
    whole = index.search(queries, 10)
    alone = [index.search(queries[i : i + 1], 10) for i in range(len(queries))]
    several = build_index(vectors, settings_for(kind, threads=2)).search(queries, 10)
    assert np.array_equal(np.concatenate([hits.rows for hits in alone]), whole.rows)
    assert np.array_equal(several.rows, whole.rows)
    assert np.allclose(np.concatenate([hits.scores for hits in alone]), whole.scores, rtol=0, atol=1e-4)


def test_no_query_gives_no_hits(kind, vectors):
    hits = build_index(vectors, settings_for(kind)).search(np.empty((0, DIMENSION), np.float32), 7)
    assert hits.rows.shape == hits.scores.shape == (0, 7)


def test_other_layouts_and_types_of_queries_are_taken(kind, vectors, queries):
    index = build_index(vectors, settings_for(kind))
    plain = index.search(queries, 5)
    strided = np.zeros((40, 2 * DIMENSION), np.float64)
    strided[:, ::2] = queries
    assert np.array_equal(index.search(strided[:, ::2], 5).rows, plain.rows)
    assert np.array_equal(index.search(np.asfortranarray(queries), 5).rows, plain.rows)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_query_or_a_vector_that_is_not_finite_is_refused(kind, vectors, queries, poison):
    index, bad = build_index(vectors, settings_for(kind)), queries.copy()
    bad[7, 3] = poison
    with pytest.raises(IntegrityError, match="queries: row 7 is not finite"):
        index.search(bad, 5)
    spoilt = vectors.copy()
    spoilt[1201, 0] = poison
    with pytest.raises(IntegrityError, match="item vectors: row 1201 is not finite"):
        build_index(spoilt, settings_for(kind))


def test_a_wrong_dimension_or_shape_is_refused(kind, vectors, queries):
    index = build_index(vectors, settings_for(kind))
    with pytest.raises(UsageError, match="queries have 23 dimensions"):
        index.search(queries[:, :23], 5)
    with pytest.raises(UsageError, match="two dimensions"):
        index.search(queries[0], 5)


@pytest.mark.parametrize("n", [0, -1])
def test_n_below_one_is_refused(kind, vectors, queries, n):
    with pytest.raises(UsageError, match=f"n = {n}"):
        build_index(vectors, settings_for(kind)).search(queries, n)


@pytest.mark.parametrize("shape", [(0, 8), (5, 0)])
def test_no_items_or_no_dimensions_are_refused(kind, shape):
    with pytest.raises(IntegrityError, match="at least one item and one dimension"):
        build_index(np.zeros(shape, np.float32), settings_for(kind))


def test_a_truncated_file_is_refused_wherever_it_ends(kind, vectors, tmp_path):
    settings, path = settings_for(kind), tmp_path / "index.faiss"
    build_index(vectors, settings).write(path)
    content = path.read_bytes()
    lengths = [0, 1, 3, 5, 7, 40, 100, 200, *range(1000, len(content), len(content) // 12), len(content) - 1]
    for length in lengths:
        path.write_bytes(content[:length])
        with pytest.raises(IntegrityError, match="build the index again"):
            read_index(path, settings, count=COUNT, dimension=DIMENSION)
    path.write_bytes(content)
    assert read_index(path, settings, count=COUNT, dimension=DIMENSION).count == COUNT


@pytest.mark.parametrize(("count", "dimension"), [(COUNT + 1, DIMENSION), (COUNT, DIMENSION - 1)])
def test_an_index_of_other_vectors_is_refused(kind, vectors, tmp_path, count, dimension):
    settings, path = settings_for(kind), tmp_path / "index.faiss"
    build_index(vectors, settings).write(path)
    with pytest.raises(IntegrityError, match=f"holds {COUNT} items of {DIMENSION} dimensions; expected {count} of {dimension}"):
        read_index(path, settings, count=count, dimension=dimension)


def test_a_missing_file_is_an_integrity_error(kind, tmp_path):
    with pytest.raises(IntegrityError, match="cannot be read"):
        read_index(tmp_path / "none", settings_for(kind), count=1, dimension=1)


def test_a_gpu_that_is_not_there_is_a_resource_error(kind, vectors, tmp_path):
    if has_gpu() if kind == "exact" else gpu_count():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ResourceError, match="device = 'auto'"):
        build_index(vectors, settings_for(kind, device="gpu"))
    path = tmp_path / "index.faiss"
    build_index(vectors, settings_for(kind)).write(path)
    with pytest.raises(ResourceError, match="device = 'auto'"):
        read_index(path, settings_for(kind, device="gpu"), count=COUNT, dimension=DIMENSION)


def test_auto_takes_what_there_is(kind, vectors, queries):
    index = build_index(vectors, settings_for(kind, device="auto"))
    assert index.device == ("gpu" if gpu_count() and LIVES_ON_A_GPU.fullmatch(kind) else "cpu")
    assert index.search(queries, 3).rows.shape == (40, 3)


def test_the_measured_recall_is_what_sets_say(kind, vectors, queries):
    index = build_index(vectors, settings_for(kind, nprobe=2, ef_search=1, over_fetch=0))
    exact = ExactIndex(vectors, settings_for("exact"))
    wanted, found = exact.search(queries, 10).rows.tolist(), index.search(queries, 10).rows.tolist()
    by_sets = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(wanted, found, strict=True)])
    judge = Judge(exact, queries[:, None], np.ones((len(queries), 1), dtype=bool), 10)
    # Without hits beyond those asked for, lists are what the index itself answers.
    measured = judge.finding(make_search(10, 1)(index, vectors)).recall
    assert measured == pytest.approx(by_sets, abs=1e-9)
    assert measured == 1.0 if kind in EXACT_KINDS else measured < 1.0


@pytest.mark.parametrize("factory", ["Flat", "IVF16,Flat", "HNSW32"])
def test_a_file_with_another_metric_is_refused(factory, vectors, tmp_path):
    index = faiss.index_factory(DIMENSION, factory, faiss.METRIC_L2)
    index.train(vectors)
    index.add(vectors)
    path: Path = tmp_path / "l2.faiss"
    files.write(faiss, index, Tombstones(COUNT), COUNT, path)
    # A flat index is told by the first bytes of its file, before FAISS reads it.
    words = "begins with b'IxF2'; expected a kind built here" if factory == "Flat" else "expected an inner-product index"
    with pytest.raises(IntegrityError, match=words):
        read_index(path, settings_for(factory), count=COUNT, dimension=DIMENSION)
