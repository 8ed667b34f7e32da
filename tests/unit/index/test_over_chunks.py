"""Chunks of rows over threads."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.index.threads import over_chunks


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
