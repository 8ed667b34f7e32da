"""FAISS behind the search contract: any factory string, inner product throughout."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from retrieval.core.errors import IntegrityError, ResourceError, UsageError
from retrieval.core.logging import get_logger
from retrieval.core.resources import as_resource_error, available_threads
from retrieval.core.seeds import derive_seed
from retrieval.index.abstract import AbstractIndex, Hits, as_vectors
from retrieval.index.faiss_library import faiss_library, gpu_count
from retrieval.index.settings import IndexSettings
from retrieval.index.threads import over_chunks

GPU_MAX_RESULTS = 2048
_log = get_logger("index")
# FAISS divides by zero lists, links or codes, aborts, or never returns.
_DEGENERATE = re.compile(r"[A-Za-z]0+(?!\d)|(?:HNSW|NSG)0*1(?!\d)")
_GRAPH = re.compile(r"(?:^|,)(?:HNSW|NSG)")


class FaissIndex(AbstractIndex):
    """A trained and filled FAISS index, on a GPU when the settings, the library and the kind of index allow it."""

    def __init__(self, index: Any, settings: IndexSettings) -> None:
        super().__init__(settings, int(index.ntotal), int(index.d))
        self._faiss = faiss_library()
        self._exact = isinstance(index, self._faiss.IndexFlat)
        self._index = _placed(self._faiss, index, settings)
        self._on_gpu = self._index is not index
        self._tune(index)

    @property
    def is_exact(self) -> bool:
        return self._exact

    @property
    def max_results(self) -> int:
        return min(self.count, GPU_MAX_RESULTS) if self._on_gpu else self.count

    @property
    def device(self) -> str:
        return "gpu" if self._on_gpu else "cpu"

    def _tune(self, index: Any) -> None:
        # Counts queries x dimensions and starts at 128,000: up to 2,000 queries would go through a scan six times slower.
        self._faiss.cvar.distance_compute_blas_threshold = 128
        space = self._faiss.GpuParameterSpace() if self._on_gpu else self._faiss.ParameterSpace()
        if self._faiss.try_extract_index_ivf(index) is not None:
            space.set_index_parameter(self._index, "nprobe", self._nprobe(index))
        elif isinstance(self._faiss.downcast_index(getattr(index, "index", index)), self._faiss.IndexHNSW):
            space.set_index_parameter(self._index, "efSearch", self.settings.ef_search)

    def _nprobe(self, index: Any) -> int:
        lists = int(self._faiss.try_extract_index_ivf(index).nlist)
        return min(self.settings.nprobe, lists, GPU_MAX_RESULTS if self._on_gpu else lists)

    def _search(self, queries: Float32[np.ndarray, "q d"], n: int) -> Hits:
        hits = Hits(np.empty((len(queries), n), np.int64), np.empty((len(queries), n), np.float32))
        over_chunks(self._search_part, len(queries), 1 if self._on_gpu else self.settings.threads, queries, hits)
        hits.scores[hits.rows < 0] = -np.inf
        return hits

    def _search_part(self, start: int, stop: int, queries: Float32[np.ndarray, "q d"], hits: Hits) -> None:
        # Our threads share out the queries and FAISS keeps to one each: its own wait for each other by spinning, which
        # on a machine with other work to do costs up to a hundred times the search.
        with _one_thread(self._faiss):
            hits.scores[start:stop], hits.rows[start:stop] = self._index.search(queries[start:stop], hits.rows.shape[1])

    def write(self, path: Path) -> None:
        """Write FAISS's own format; an index on a GPU is copied back first.

        Raises:
            ResourceError: the disk is full or may not be written.
        """
        index = self._faiss.index_gpu_to_cpu(self._index) if self._on_gpu else self._index
        try:
            # FAISS's own files are closed without asking whether the last bytes fitted on the disk.
            with path.open("wb") as stream:
                self._faiss.write_index(index, self._faiss.PyCallbackIOWriter(stream.write))
        except (OSError, RuntimeError) as error:
            raise as_resource_error(error, path) or ResourceError(f"FAISS cannot write: {_reason(error)}", where=path) from None


def build_faiss(vectors: Float32[np.ndarray, "n d"], settings: IndexSettings) -> FaissIndex:
    """Train on a seeded sample and add every vector; a graph is built by one thread, because several link it differently each time.

    Raises:
        UsageError: the factory string is unknown, or there are too few vectors to train it.
        ResourceError: FAISS or the wanted GPU is missing.
    """
    faiss = faiss_library()
    vectors = as_vectors(vectors, "item vectors")
    index = _make(faiss, vectors.shape[1], settings)
    faiss.omp_set_num_threads(1 if _GRAPH.search(settings.factory) else settings.threads or available_threads())
    try:
        if not index.is_trained:
            index.train(_training_sample(vectors, settings))
        index.add(vectors)
    except RuntimeError as error:
        raise _cannot_build(error, len(vectors), settings) from None
    return FaissIndex(index, settings)


def read_faiss(path: Path, settings: IndexSettings) -> FaissIndex:
    """Read a file whose bytes were verified before.

    Raises:
        IntegrityError: the file is truncated, is no index, or its metric is not the inner product.
    """
    faiss = faiss_library()
    # A damaged length must not make FAISS allocate more than the file can hold; compressed codes never expand here.
    faiss.set_deserialization_vector_byte_limit(max(path.stat().st_size, 1) * 8)
    try:
        index = faiss.read_index(str(path))
    except RuntimeError as error:
        raise IntegrityError(f"is no readable FAISS index: {_reason(error)}", where=path, remedy="build the index again") from None
    if index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise IntegrityError("searches by another metric", where=path, expected="inner product", remedy="build the index again")
    return FaissIndex(index, settings)


def _make(faiss: Any, dimension: int, settings: IndexSettings) -> Any:
    if _DEGENERATE.search(settings.factory):
        raise _cannot_make("a count in it is too small", dimension, settings)
    try:
        return faiss.index_factory(dimension, settings.factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise _cannot_make(_reason(error), dimension, settings) from None


def _cannot_make(reason: str, dimension: int, settings: IndexSettings) -> UsageError:
    return UsageError(
        f"factory = '{settings.factory}' cannot be built for {dimension} dimensions: {reason}",
        where="index",
        remedy="try Flat, IVF1024,Flat, IVF1024,SQ8 or HNSW32",
    )


def _training_sample(vectors: Float32[np.ndarray, "n d"], settings: IndexSettings) -> Float32[np.ndarray, "m d"]:
    size = settings.train_sample
    if size == 0 or size >= len(vectors):
        return vectors
    chosen = np.random.default_rng(derive_seed("index", settings.factory)).choice(len(vectors), size, replace=False)
    return vectors[np.sort(chosen)]


def _cannot_build(error: RuntimeError, count: int, settings: IndexSettings) -> Exception:
    resource_error = as_resource_error(error, "index")
    return resource_error or UsageError(
        f"factory = '{settings.factory}' cannot be trained on {min(count, settings.train_sample or count)} vectors: {_reason(error)}",
        where="index",
        remedy="use fewer lists, a larger train_sample, or factory = 'Flat'",
    )


def _placed(faiss: Any, index: Any, settings: IndexSettings) -> Any:
    """The index itself, or its copy on the GPUs; `auto` says which and why, `gpu` takes no other answer."""
    if settings.device == "cpu":
        return index
    found = gpu_count()
    placed, why = _on_gpus(faiss, index, found) if found else (index, "this FAISS sees no GPU")
    if settings.device == "gpu" and placed is index:
        raise ResourceError(why, where="index.device = 'gpu'", remedy="pip install multi-interest-retrieval[gpu] or device = 'auto'")
    if settings.device == "auto":
        _log.info("index device", device="cpu" if placed is index else "gpu", why=why)
    return placed


def _on_gpus(faiss: Any, index: Any, found: int) -> tuple[Any, str]:
    try:
        copy = faiss.index_cpu_to_all_gpus(index) if found > 1 else faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    except RuntimeError as error:
        return index, f"this kind of index cannot live on a GPU: {_reason(error)}"
    return copy, f"this FAISS sees {found} GPUs"


@contextlib.contextmanager
def _one_thread(faiss: Any) -> Iterator[None]:
    # The number belongs to the calling thread, which may have other work for the same OpenMP library.
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _reason(error: BaseException) -> str:
    # FAISS prefixes C++ signatures and source lines; the sentence a person can use comes last.
    return str(error).rsplit("Error: ", 1)[-1].rsplit(".cpp:", 1)[-1].split(": ", 1)[-1].strip()
