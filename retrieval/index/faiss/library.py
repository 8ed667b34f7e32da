"""The FAISS module itself, what its build can do, or one line on why there is none."""

import re
from functools import cache
from importlib import metadata
from typing import Any

from retrieval.core.errors import ResourceError

# The CPU build, the GPU build and the GPU build with cuVS come from FAISS's own project; others ship the same module, too.
_BUILDS = re.compile(r"faiss([-_](cpu|gpu|cuda)([-_].*)?)?", re.IGNORECASE)
_MODULE = "faiss/__init__.py"
_INSTALL = "pip install multi-interest-retrieval[cpu] (or [gpu] or [cuvs], only one of them)"
# What a build can hold, and the class that shows it can.
_KINDS = {
    "Flat": "IndexFlat",
    "IVF": "IndexIVFFlat",
    "SQ8": "IndexIVFScalarQuantizer",
    "PQ fast-scan": "IndexIVFPQFastScan",
    "RaBitQ": "IndexIVFRaBitQ",
    "HNSW": "IndexHNSWFlat",
    "NSG": "IndexNSGFlat",
    "OPQ": "OPQMatrix",
    "refine": "IndexRefineFlat",
    "Flat and IVF on a GPU": "GpuIndexIVFFlat",
    "CAGRA on a GPU": "GpuIndexCagra",
}


@cache
def faiss_library() -> Any:
    """The imported FAISS module.

    Raises:
        ResourceError: it is not installed, does not load, or two builds of it lie over each other.
    """
    installed = installed_packages()
    if len(installed) > 1:
        raise ResourceError(
            f"{' and '.join(installed)} overwrite each other's files",
            where="faiss",
            expected="one of them",
            remedy=f"pip uninstall {' '.join(installed)}, then {_INSTALL}",
        )
    try:
        import faiss
    # A GPU build without its CUDA libraries, or with files of another build, raises RuntimeError; a broken one anything.
    except Exception as error:
        reason = "is not installed" if isinstance(error, ImportError) and not installed else f"does not load: {_first_line(error)}"
        raise ResourceError(f"FAISS {reason}", remedy=f"{_INSTALL}, or set index.factory = 'exact'") from None
    # Counts queries x dimensions and starts at 128,000 (faiss#5022): up to 2,000 queries would go through a scan six times slower.
    faiss.cvar.distance_compute_blas_threshold = 128
    return faiss


def faiss_fault() -> str:
    """Why FAISS cannot be used, empty where it can."""
    try:
        faiss_library()
    except ResourceError as error:
        return str(error)
    return ""


@cache
def installed_packages() -> tuple[str, ...]:
    """The installed distributions that provide the module `faiss`, in order of name."""
    return tuple(sorted({one.metadata["Name"].lower() for one in metadata.distributions() if _provides_faiss(one)}))


def gpu_count() -> int:
    """The GPUs that FAISS can use; 0 for a build without GPU support."""
    faiss = faiss_library()
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def kinds() -> dict[str, bool]:
    """Kinds of index by name, and whether this build has them."""
    faiss = faiss_library()
    return {name: hasattr(faiss, symbol) for name, symbol in _KINDS.items()}


def instructions() -> list[str]:
    """The instruction sets that the loaded library was compiled for; none for the plain one."""
    return [name for name in faiss_library().get_compile_options().split() if name.startswith(("AVX", "NEON", "SVE"))]


def gpu_fault() -> str:
    """Why a search on the first GPU fails, empty where it succeeds; a build may hold no code for the GPU that is there."""
    import numpy as np

    faiss = faiss_library()
    vectors = np.eye(32, dtype=np.float32)
    try:
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, faiss.IndexFlatIP(32))
        index.add(vectors)
        found = index.search(vectors, 1)[1][:, 0]
    except RuntimeError as error:
        return _first_line(error)
    return "" if np.array_equal(found, np.arange(32)) else "it finds wrong items"


def _provides_faiss(distribution: metadata.Distribution) -> bool:
    name = distribution.metadata["Name"] or ""
    if _BUILDS.fullmatch(name) is None:
        return False
    # A package that only depends on a build has another's files; one without a list of files is taken at its name.
    files = distribution.files
    return files is None or any(str(file) == _MODULE for file in files)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
