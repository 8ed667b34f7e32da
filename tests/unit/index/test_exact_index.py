"""Exact search against a full sort, over blocks, batches and ties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.core.errors import IntegrityError, UsageError
from retrieval.index.exact.index import ExactIndex
from retrieval.index.settings import IndexSettings
from retrieval.index.table import read_index

SETTINGS = IndexSettings(factory="exact", threads=1)


def whole_numbers(seed: int, count: int, dimension: int, largest: int) -> np.ndarray:
    """Vectors whose float32 inner products are exact, so that equal scores are truly equal."""
    return np.random.default_rng(seed).integers(-largest, largest + 1, (count, dimension)).astype(np.float32)


def brute_force(vectors: np.ndarray, queries: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    scores = queries @ vectors.T
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :n]
    return rows, np.take_along_axis(scores, rows, axis=1)


@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 60),
    queries=st.integers(1, 6),
    dimension=st.integers(1, 9),
    largest=st.sampled_from([0, 1, 20]),
    n=st.integers(1, 60),
    threads=st.sampled_from([1, 2, 5]),
)
def test_equals_a_stable_sort(seed, count, queries, dimension, largest, n, threads):
    vectors = whole_numbers(seed, count, dimension, largest)
    asked = whole_numbers(seed + 1, queries, dimension, 3)
    hits = ExactIndex(vectors, SETTINGS.model_copy(update={"threads": threads})).search(asked, n)
    rows, scores = brute_force(vectors, asked, n)
    assert np.array_equal(hits.rows[:, : min(n, count)], rows)
    assert np.array_equal(hits.scores[:, : min(n, count)], scores)
    assert (hits.rows[:, count:] == -1).all()


def test_many_blocks_of_items_and_of_queries_change_nothing():
    # 1 MiB holds the products of 1,024 items with 256 queries: five blocks of items, three of queries.
    vectors, asked = whole_numbers(0, 5000, 8, 50), whole_numbers(1, 600, 8, 50)
    small, large = (ExactIndex(vectors, SETTINGS.model_copy(update={"block_mb": size})).search(asked, 20) for size in (1, 64))
    rows, scores = brute_force(vectors, asked, 20)
    assert np.array_equal(small.rows, rows)
    assert np.array_equal(large.rows, rows)
    assert np.array_equal(small.scores, scores)


def test_equal_scores_come_by_row():
    hits = ExactIndex(np.ones((500, 1), np.float32), SETTINGS).search(np.ones((2, 1), np.float32), 100)
    assert np.array_equal(hits.rows, np.tile(np.arange(100), (2, 1)))


def test_a_memory_map_is_searched_without_a_copy(tmp_path):
    np.save(tmp_path / "items.npy", whole_numbers(0, 50, 4, 5))
    mapped = np.load(tmp_path / "items.npy", mmap_mode="r")
    index = ExactIndex(mapped, SETTINGS)
    assert np.shares_memory(index.vectors, mapped)
    assert np.array_equal(index.search(mapped[:3], 5).rows, brute_force(np.array(mapped), np.array(mapped[:3]), 5)[0])


@pytest.mark.parametrize("mmap", [True, False])
def test_a_written_index_stays_in_its_file_where_the_settings_say_so(mmap, tmp_path):
    vectors = whole_numbers(0, 50, 4, 5)
    ExactIndex(vectors, SETTINGS).write(tmp_path / "index")
    index = read_index(tmp_path / "index", SETTINGS.model_copy(update={"mmap": mmap}), count=50, dimension=4)
    assert isinstance(index.vectors.base, np.memmap) == mmap
    assert np.array_equal(index.search(vectors[:3], 5).rows, brute_force(vectors, vectors[:3], 5)[0])


def test_scores_past_float32_are_refused():
    with pytest.raises(IntegrityError, match="queries overflow"):
        ExactIndex(np.full((3, 2), 1e30, np.float32), SETTINGS).search(np.full((1, 2), 1e10, np.float32), 1)


def test_vectors_that_are_no_matrix_are_refused():
    with pytest.raises(UsageError, match="two dimensions"):
        ExactIndex(np.zeros(5, np.float32), SETTINGS)


def test_a_file_that_holds_something_else_is_refused(tmp_path):
    np.save(tmp_path / "double.npy", np.zeros((4, 2)))
    np.save(tmp_path / "cube.npy", np.zeros((4, 2, 2), np.float32))
    np.save(tmp_path / "object.npy", np.array([{"a": 1}, None], dtype=object))
    for name, message in (("double", "holds float64"), ("cube", "expected a float32 matrix"), ("object", "no readable matrix")):
        with pytest.raises(IntegrityError, match=message):
            read_index(tmp_path / f"{name}.npy", SETTINGS, count=4, dimension=2)
