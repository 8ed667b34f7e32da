"""From a factory string or a file to an index."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from retrieval.core.errors import IntegrityError, ResourceError
from retrieval.core.tables import Table
from retrieval.index.abstract import AbstractIndex, as_vectors
from retrieval.index.exact.cuda import CudaEngine
from retrieval.index.exact.index import ExactIndex
from retrieval.index.faiss.build import build_faiss, read_faiss
from retrieval.index.settings import IndexSettings

Builder = Callable[[Float32[np.ndarray, "n d"], IndexSettings, Path | None], AbstractIndex]
_NUMPY_MAGIC = b"\x93NUMPY"


def _exact(vectors: Float32[np.ndarray, "n d"], settings: IndexSettings, _folder: Path | None = None) -> ExactIndex:
    if settings.device == "gpu" and not CudaEngine.is_available():
        remedy = "device = 'auto'"
        raise ResourceError("torch sees no GPU that multiplies bfloat16", where="index.device = 'gpu'", remedy=remedy)
    return ExactIndex(vectors, settings)


INDEXES: Table[Builder] = Table("index", {"exact": _exact, "faiss": build_faiss})


def build_index(vectors: Float32[np.ndarray, "n d"], settings: IndexSettings, folder: Path | None = None) -> AbstractIndex:
    """Index item vectors float32[N, D]; row i of the hits is row i of the vectors.

    folder: where a long build keeps what it has done; a build that was killed goes on from there to the same bytes.

    Raises:
        IntegrityError: there are no items, or a value is not finite.
        UsageError: the factory string cannot be built on these vectors.
        ResourceError: FAISS or the wanted device is missing.
    """
    vectors = as_vectors(vectors, "item vectors")
    if 0 in vectors.shape:
        raise IntegrityError(f"item vectors have shape {vectors.shape}", expected="at least one item and one dimension")
    return INDEXES["exact" if settings.factory == "exact" else "faiss"](vectors, settings, folder)


def read_index(path: Path, settings: IndexSettings, *, count: int, dimension: int) -> AbstractIndex:
    """Read an index that `write` wrote; the caller has verified the file's sha256.

    Raises:
        IntegrityError: the file is damaged, or does not hold `count` items of `dimension` dimensions.
        ResourceError: it is a FAISS index and FAISS is missing.
    """
    index = _read_exact(path, settings) if _is_numpy(path) else read_faiss(path, settings)
    if (index.count, index.dimension) != (count, dimension):
        raise IntegrityError(
            f"holds {index.count} items of {index.dimension} dimensions",
            where=path,
            expected=f"{count} of {dimension}",
            remedy="build the index for this model and catalog",
        )
    return index


def _is_numpy(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(len(_NUMPY_MAGIC)) == _NUMPY_MAGIC
    except OSError as error:
        raise IntegrityError(f"cannot be read: {error.strerror}", where=path, remedy="build the index again") from None


def _read_exact(path: Path, settings: IndexSettings) -> ExactIndex:
    try:
        vectors = np.load(path, mmap_mode="r" if settings.mmap else None, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise IntegrityError(f"is no readable matrix: {error}", where=path, remedy="build the index again") from None
    if vectors.dtype != np.float32 or vectors.ndim != 2:
        raise IntegrityError(f"holds {vectors.dtype}{list(vectors.shape)}", where=path, expected="a float32 matrix")
    return _exact(vectors, settings)
