"""How much of the exact result is found, and chunks of rows over threads."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.core.errors import UsageError
from retrieval.index.abstract import Hits
from retrieval.index.exact.index import ExactIndex
from retrieval.index.quality import measure_recall
from retrieval.index.settings import IndexSettings
from retrieval.index.threads import over_chunks

SETTINGS = IndexSettings(factory="exact", threads=1)


class FixedIndex(ExactIndex):
    """Answers with given rows."""

    answer: np.ndarray

    def search(self, queries, n):
        return Hits(self.answer[:, :n], np.zeros_like(self.answer[:, :n], dtype=np.float32))


def fixed(vectors: np.ndarray, answer: list[list[int]]) -> FixedIndex:
    index = FixedIndex(vectors, SETTINGS)
    index.answer = np.array(answer, dtype=np.int64)
    return index


def test_missing_rows_and_worse_items_count_as_not_found():
    vectors = np.array([[4.0], [3.0], [2.0], [1.0]], np.float32)
    query = np.ones((2, 1), np.float32)
    index = fixed(vectors, [[0, 1], [-1, 3]])
    assert measure_recall(index, ExactIndex(vectors, SETTINGS), query, 2) == 0.5


def test_an_item_of_equal_score_is_as_good():
    vectors = np.array([[1.0], [1.0], [1.0], [0.0]], np.float32)
    assert measure_recall(fixed(vectors, [[2, 1]]), ExactIndex(vectors, SETTINGS), np.ones((1, 1), np.float32), 2) == 1.0


def test_n_past_the_catalog_is_measured_over_the_catalog():
    vectors = np.array([[2.0], [1.0]], np.float32)
    assert measure_recall(ExactIndex(vectors, SETTINGS), ExactIndex(vectors, SETTINGS), np.ones((1, 1), np.float32), 100) == 1.0


def test_without_a_query_there_is_nothing_to_measure():
    index = ExactIndex(np.ones((3, 2), np.float32), SETTINGS)
    with pytest.raises(UsageError, match="no queries"):
        measure_recall(index, index, np.empty((0, 2), np.float32), 5)


@given(count=st.integers(0, 50), threads=st.integers(1, 9))
def test_every_row_is_visited_once(count, threads):
    visits, lock = np.zeros(count, np.int64), threading.Lock()

    def visit(start, stop, step):
        with lock:
            visits[start:stop] += step

    over_chunks(visit, count, threads, 1)
    assert (visits == 1).all()


def test_an_error_in_a_thread_is_raised():
    def fail(start, stop):
        if start:
            raise ValueError("second chunk")

    with pytest.raises(ValueError, match="second chunk"):
        over_chunks(fail, 10, 2)
