"""From a factory string to a trained and filled index.

Coarse quantizers are k-means on the sphere under the inner product: lists are probed by the score they are searched by (L2
lists under inner products find less). Fifty vectors a list train it as well as all of them.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from retrieval.core.errors import UsageError
from retrieval.core.resources import as_resource_error, available_threads
from retrieval.core.seeds import derive_seed
from retrieval.index.abstract import as_vectors
from retrieval.index.faiss import devices, files
from retrieval.index.faiss.checkpoints import Checkpoints
from retrieval.index.faiss.filling import assign, fill
from retrieval.index.faiss.index import FaissIndex
from retrieval.index.faiss.library import faiss_library
from retrieval.index.faiss.parts import core, fault, is_one_of, parts, reason
from retrieval.index.faiss.threads import faiss_threads
from retrieval.index.settings import IndexSettings

# FAISS divides by zero lists, links or codes, aborts, or never returns.
_DEGENERATE = re.compile(r"[A-Za-z]0+(?!\d)|(?:HNSW|NSG)0*1(?!\d)")
_CAGRA = re.compile(r"CAGRA([1-9]\d*)")
_A_LIST, _SMALLEST_SAMPLE = 50, 65_536


@dataclass(frozen=True)
class Coarse:
    """The lists of an IVF index: what its k-means found, and the list of every row. Several codes can share them."""

    centroids: Float32[np.ndarray, "l d"]
    lists: Int32[np.ndarray, "n"]


def build_faiss(
    vectors: Float32[np.ndarray, "n d"], settings: IndexSettings, folder: Path | None = None, coarse: Coarse | None = None
) -> FaissIndex:
    """Train on a seeded sample and add every vector; a graph is built by one thread, because several link it differently each time.

    Args:
        vectors: of the items; row i of the hits is row i of them.
        settings: what to build.
        folder: where the build keeps what it has done, for itself when it is killed and started again.
        coarse: the lists of an IVF index that were found before for the same vectors and settings.

    Raises:
        UsageError: the factory string is unknown, or there are too few vectors to train it.
        ResourceError: FAISS or the wanted GPU is missing.
    """
    faiss = faiss_library()
    vectors = as_vectors(vectors, "item vectors")
    cagra = _CAGRA.fullmatch(settings.factory)
    if cagra:
        return FaissIndex(_build_cagra(faiss, vectors, int(cagra[1])), settings)
    index, checkpoints = make_empty(faiss, vectors.shape[1], settings), Checkpoints(folder)
    try:
        with faiss_threads(faiss, _build_threads(faiss, index, settings)):
            index = checkpoints.trained(faiss, lambda: _trained(faiss, index, vectors, settings, coarse))
            index = fill(faiss, index, vectors, checkpoints, None if coarse is None else coarse.lists)
    except RuntimeError as error:
        raise _cannot_build(error, len(vectors), settings) from None
    return FaissIndex(index, settings)


def assign_shard(vectors: Float32[np.ndarray, "n d"], settings: IndexSettings, folder: Path, shard: tuple[int, int]) -> None:
    """Do the share i of m of a build whose folder several processes see: train if nobody has, then assign every m-th block to lists.

    `build_faiss` on the same folder takes what it finds there. Training is a function of vectors and settings, so processes
    that train at the same time write the same.

    Raises:
        UsageError: the factory string has no inverted lists of its own, so there is nothing to share.
    """
    faiss = faiss_library()
    index, checkpoints = make_empty(faiss, vectors.shape[1], settings), Checkpoints(folder)
    if not is_one_of(faiss, index, "IndexIVF"):
        raise UsageError(f"factory = '{settings.factory}' has no shards", where="index", expected="IVF, such as IVF1024,SQ8")
    with faiss_threads(faiss, _build_threads(faiss, index, settings)):
        trained = checkpoints.trained(faiss, lambda: _trained(faiss, index, vectors, settings, None))
        assign(trained.quantizer, vectors, checkpoints, shard)


def make_coarse(vectors: Float32[np.ndarray, "n d"], lists: int, settings: IndexSettings) -> Coarse:
    """The lists that `build_faiss` would find for any IVF code with so many lists."""
    faiss, plain = faiss_library(), settings.model_copy(update={"factory": f"IVF{lists},Flat"})
    index = make_empty(faiss, vectors.shape[1], plain)
    with faiss_threads(faiss, _build_threads(faiss, index, plain)):
        _trained(faiss, index, vectors, plain, None)
        centroids = index.quantizer.reconstruct_n(0, lists)
        return Coarse(centroids, assign(index.quantizer, vectors, Checkpoints()))


def read_faiss(path: Path, settings: IndexSettings) -> FaissIndex:
    """Read a file whose bytes were verified before.

    Raises:
        IntegrityError: the file is cut short or no index, or a part of it is of an unknown kind or another metric.
    """
    index, tombstones, built = files.read(faiss_library(), path, mapped=settings.mmap)
    return FaissIndex(index, settings, tombstones=tombstones, built=built, mapped=settings.mmap)


def make_empty(faiss: Any, dimension: int, settings: IndexSettings) -> Any:
    """An untrained index. Raises UsageError when the factory string cannot be built for the dimension."""
    if _DEGENERATE.search(settings.factory):
        raise _cannot_make("a count in it is too small", dimension, settings)
    try:
        index = faiss.index_factory(dimension, settings.factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise _cannot_make(reason(error), dimension, settings) from None
    wrong = fault(faiss, index)
    if wrong:
        raise _cannot_make(wrong, dimension, settings)
    inner = core(faiss, index)
    if is_one_of(faiss, inner, "IndexHNSW"):
        inner.hnsw.efConstruction = settings.ef_construction
    return index


def _trained(faiss: Any, index: Any, vectors: Float32[np.ndarray, "n d"], settings: IndexSettings, coarse: Coarse | None) -> Any:
    """The index, trained on a seeded sample; centroids that are given are taken as they are."""
    ivf = core(faiss, index)
    lists = int(ivf.nlist) if is_one_of(faiss, ivf, "IndexIVF") else 0
    if lists:
        # The sample's size is ours to choose; FAISS would warn of it on standard error.
        ivf.cp.min_points_per_centroid = 1
        if coarse is not None:
            ivf.quantizer.add(coarse.centroids)
    if not index.is_trained:
        index.train(_training_sample(vectors, settings, lists))
    return index


def _training_sample(vectors: Float32[np.ndarray, "n d"], settings: IndexSettings, lists: int) -> Float32[np.ndarray, "m d"]:
    """Rows drawn by a seed, in their order: `train_sample` of them, or by default enough for so many lists and for any code."""
    size = settings.train_sample or max(_A_LIST * lists, _SMALLEST_SAMPLE)
    if size >= len(vectors):
        return vectors
    chosen = np.random.default_rng(derive_seed("index", "sample")).choice(len(vectors), size, replace=False)
    return vectors[np.sort(chosen)]


def _build_threads(faiss: Any, index: Any, settings: IndexSettings) -> int:
    """Threads that leave the same index each time: graphs and learned rotations come out differently with every number."""
    graphs = any(is_one_of(faiss, part, "IndexHNSW", "IndexNSG") for part in parts(faiss, index))
    alone = graphs or "OPQ" in settings.factory
    return 1 if alone else settings.threads or available_threads()


def _build_cagra(faiss: Any, vectors: Float32[np.ndarray, "n d"], degree: int) -> Any:
    devices.require_gpu("CAGRA")
    if not hasattr(faiss, "GpuIndexCagra"):
        raise UsageError("this FAISS has no CAGRA", where="index.factory", remedy="pip install multi-interest-retrieval[cuvs], or use Flat")
    shape = faiss.GpuIndexCagraConfig()
    shape.graph_degree, shape.intermediate_graph_degree = degree, 2 * degree
    index = faiss.GpuIndexCagra(faiss.StandardGpuResources(), vectors.shape[1], faiss.METRIC_INNER_PRODUCT, shape)
    # Training is all there is: it links the vectors it is given, and they are the index.
    index.train(vectors)
    return index


def _cannot_make(why: str, dimension: int, settings: IndexSettings) -> UsageError:
    return UsageError(
        f"factory = '{settings.factory}' cannot be built for {dimension} dimensions: {why}",
        where="index",
        remedy="try Flat, IVF1024,Flat, IVF1024,SQ8 or HNSW32",
    )


def _cannot_build(error: RuntimeError, count: int, settings: IndexSettings) -> Exception:
    """What a failure of FAISS on `count` vectors stands for."""
    return as_resource_error(error, "index") or UsageError(
        f"factory = '{settings.factory}' cannot be trained on {min(count, settings.train_sample or count)} vectors: {reason(error)}",
        where="index",
        remedy="use fewer lists, a larger train_sample, or factory = 'Flat'",
    )
