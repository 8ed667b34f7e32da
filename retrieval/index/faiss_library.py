"""The FAISS module itself, or one line on why there is none."""

from functools import cache
from importlib import metadata
from typing import Any

from retrieval.core.errors import ResourceError

_PACKAGES = ("faiss-cpu", "faiss-gpu", "faiss-gpu-cu12", "faiss-gpu-cu11")


@cache
def faiss_library() -> Any:
    """The imported FAISS module.

    Raises:
        ResourceError: it is not installed, does not load, or two builds of it lie over each other.
    """
    installed = installed_packages()
    if len(installed) > 1:
        raise ResourceError(
            f"{' and '.join(installed)} overwrite each other",
            expected="one of them",
            remedy=f"pip uninstall {' '.join(installed)}, then install one",
        )
    try:
        import faiss
    except ImportError as error:
        reason = "is not installed" if not installed else f"does not load: {error}"
        raise ResourceError(
            f"FAISS {reason}", remedy="pip install multi-interest-retrieval[cpu] (or [gpu], never both), or set index.factory = 'exact'"
        ) from None
    return faiss


def installed_packages() -> list[str]:
    """The installed distributions that provide the module `faiss`."""
    return [name for name in _PACKAGES if _is_installed(name)]


def gpu_count() -> int:
    """The GPUs that FAISS can use; 0 for a build without GPU support."""
    faiss = faiss_library()
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
