"""OpenMP threads of FAISS. The number belongs to the calling thread, which may have other work for the same library."""

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def faiss_threads(faiss: Any, number: int) -> Iterator[None]:
    """Let FAISS use so many threads for calls of this thread."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(number)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
