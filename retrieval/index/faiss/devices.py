"""Where an index lives. Nothing outside this module knows that there are GPUs.

A GPU takes flat indexes, IVF of Flat, SQ and PQ, and CAGRA; not HNSW, refiners or fast-scan codes (faiss#2361). It answers at
most 2048 hits from at most 2048 lists, and has its own memory. What does not fit stays on the CPU, and is said to.
"""

from dataclasses import dataclass
from typing import Any

from retrieval.core.errors import ResourceError
from retrieval.core.logging import get_logger
from retrieval.index.faiss.library import gpu_count
from retrieval.index.faiss.parts import core, is_one_of, reason
from retrieval.index.settings import IndexSettings

GPU_LIMIT = 2048
_INSTALL = "pip install multi-interest-retrieval[gpu] or device = 'auto'"
_log = get_logger("index")


@dataclass(frozen=True)
class Placed:
    """An index where it is searched. several: copies on several GPUs, which take no parameters with a search."""

    index: Any
    on_gpu: bool
    several: bool = False

    @property
    def device(self) -> str:
        """`cpu` or `gpu`."""
        return "gpu" if self.on_gpu else "cpu"


def place(faiss: Any, index: Any, settings: IndexSettings) -> Placed:
    """The index itself, or its copy on the GPUs; `auto` says which and why, `gpu` takes no other answer.

    Raises:
        ResourceError: device is `gpu` and the index cannot live there.
    """
    if settings.device == "cpu":
        return Placed(index, on_gpu=is_one_of(faiss, index, "GpuIndex"))
    placed, why = _attempt(faiss, index, settings)
    if settings.device == "gpu" and not placed.on_gpu:
        raise ResourceError(why, where="index.device = 'gpu'", remedy=_INSTALL)
    if settings.device == "auto":
        _log.info("index device", device=placed.device, why=why)
    return placed


def require_gpu(kind: str) -> None:
    """Raise ResourceError when a kind of index that is built on a GPU has none."""
    if not gpu_count():
        raise ResourceError(
            f"{kind} is built on a GPU and this FAISS sees none",
            where="index.factory",
            remedy="pip install multi-interest-retrieval[cuvs], or use HNSW32",
        )


def on_cpu(faiss: Any, placed: Placed) -> Any:
    """A copy of the index on the CPU; itself where it is there already."""
    return faiss.index_gpu_to_cpu(placed.index) if placed.on_gpu else placed.index


def too_deep(faiss: Any, placed: Placed, n: int, nprobe: int) -> str:
    """Why a search for n hits cannot run where the index is, empty where it can."""
    if not placed.on_gpu:
        return ""
    if n > GPU_LIMIT:
        return f"{n} hits are more than the {GPU_LIMIT} of a GPU"
    return f"nprobe = {nprobe} is more than the {GPU_LIMIT} lists that a GPU visits" if _visited(faiss, placed, nprobe) > GPU_LIMIT else ""


def _visited(faiss: Any, placed: Placed, nprobe: int) -> int:
    """Lists that a search visits; the number of lists limits it where one index says how many it has."""
    if placed.several:
        return nprobe
    inner = core(faiss, placed.index)
    return min(nprobe, int(inner.nlist)) if hasattr(inner, "nlist") else 0


def is_out_of_gpu_memory(error: RuntimeError) -> bool:
    """Whether FAISS failed because a GPU's memory is full."""
    return any(words in str(error) for words in ("cudaMalloc", "alloc fail", "out of memory", "CUDA_ERROR_OUT_OF_MEMORY"))


def tune_copies(faiss: Any, placed: Placed, nprobe: int) -> None:
    """Set the lists to visit on copies that take no parameters with a search."""
    if placed.several and nprobe <= GPU_LIMIT and is_one_of(faiss, core(faiss, placed.index), "IndexIVF", "GpuIndexIVF", "IndexReplicas"):
        faiss.GpuParameterSpace().set_index_parameter(placed.index, "nprobe", nprobe)


def _attempt(faiss: Any, index: Any, settings: IndexSettings) -> tuple[Placed, str]:
    here, found = Placed(index, on_gpu=False), gpu_count()
    if is_one_of(faiss, index, "GpuIndex"):
        return Placed(index, on_gpu=True), "it was built on a GPU"
    if not found:
        return here, "this FAISS sees no GPU"
    ivf = core(faiss, index)
    if is_one_of(faiss, ivf, "IndexIVF") and min(settings.nprobe, ivf.nlist) > GPU_LIMIT:
        return here, f"nprobe = {settings.nprobe} is more than the {GPU_LIMIT} lists that a GPU visits"
    try:
        copy = _copy(faiss, index, found)
    except RuntimeError as error:
        why = "a GPU's memory cannot hold it" if is_out_of_gpu_memory(error) else "this kind of index cannot live on a GPU"
        return here, f"{why}: {reason(error)}"
    placed = Placed(copy, on_gpu=True, several=found > 1)
    tune_copies(faiss, placed, settings.nprobe)
    return placed, f"this FAISS sees {found} GPUs"


def _copy(faiss: Any, index: Any, found: int) -> Any:
    return faiss.index_cpu_to_all_gpus(index) if found > 1 else faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
