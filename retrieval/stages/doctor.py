"""doctor: versions, devices, threads, what is missing and how to get it."""

import importlib
import platform
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from retrieval import __version__
from retrieval.core.artifacts import library_versions
from retrieval.core.errors import RetrievalError
from retrieval.core.resources import available_threads
from retrieval.index.exact.calibration import calibrated
from retrieval.index.faiss.library import gpu_count, gpu_fault, installed_packages, instructions, kinds

# What exact search is calibrated for.
_DIMENSION = 64
_OPTIONAL = {"Jinja2": "report", "plotly": "report", "optuna": "tune"}


def examine() -> dict[str, Any]:
    """Facts about this machine, and under `missing` one line a thing that is not there."""
    missing: list[str] = []
    return {
        "retrieval": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": available_threads(),
        "free_disk_gb": round(shutil.disk_usage(Path.cwd()).free / 1e9, 1),
        "libraries": library_versions(),
        "torch": _torch(missing),
        "faiss": _faiss(missing),
        "exact search": {"us_a_query": calibrated(_DIMENSION)},
        "missing": missing + _extras(),
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The facts as lines for a person."""
    missing = found["missing"] or ["nothing"]
    shown = [f"{name:<14} {_flat(value)}" for name, value in found.items() if name != "missing"]
    return [*shown, *(f"{'missing':<14} {line}" for line in missing)]


def _torch(missing: list[str]) -> dict[str, Any]:
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        missing.append("torch: pip install torch==2.13.0")
        return {}
    from retrieval.models.device import choose_device, choose_precision

    device = choose_device("auto")
    devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {"device": str(device), "gpus": devices, "threads": torch.get_num_threads(), "products": str(choose_precision("auto", device))}


def _faiss(missing: list[str]) -> dict[str, Any]:
    packages = list(installed_packages())
    try:
        gpus = gpu_count()
    except RetrievalError as error:
        missing.append(f"faiss: {error}")
        return {"packages": packages}
    missing.extend(_unused_gpus(gpus))
    has = kinds()
    return {
        "packages": packages,
        "code": instructions(),
        "gpus": gpus,
        "has": [name for name, there in has.items() if there],
        "has_not": [name for name, there in has.items() if not there],
    }


def _unused_gpus(usable: int) -> list[str]:
    """A line where a GPU lies idle because of the FAISS that is installed."""
    if usable:
        fault = gpu_fault()
        return [f"faiss: a search on the GPU fails: {fault}; pip install -U 'faiss-gpu>=1.14.3', or index.device = 'cpu'"] * bool(fault)
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    names = " ".join(installed_packages())
    return [f"faiss: this build uses no GPU: pip uninstall {names}, then pip install 'multi-interest-retrieval[gpu]'"]


def _extras() -> list[str]:
    installed = {distribution.metadata["Name"].lower() for distribution in metadata.distributions()}
    return [
        f"{name}: pip install 'multi-interest-retrieval[{extra}]'" for name, extra in _OPTIONAL.items() if name.lower() not in installed
    ]


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_flat(inner)}" for name, inner in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)
