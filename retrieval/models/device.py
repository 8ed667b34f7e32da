"""Which device, and what it is good at."""

from pathlib import Path

import torch

from retrieval.core.errors import ResourceError, UsageError

_CPU_FLAGS = Path("/proc/cpuinfo")


def choose_device(name: str) -> torch.device:
    """`auto` takes the GPU where there is one.

    Raises:
        ResourceError: a GPU is asked for that torch does not see.
        UsageError: the name is no device, or one of another kind.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"unknown device '{name}'", expected="auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device '{name}' is not supported", expected="auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ResourceError(f"device '{name}' is not available", remedy="use --set machine.device=auto, or install a CUDA build of torch")
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The dtype of large matrix products: bfloat16 where the hardware multiplies it faster than float32."""
    if name == "auto":
        return torch.bfloat16 if _multiplies_bfloat16(device) else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    flags = _CPU_FLAGS.read_text() if _CPU_FLAGS.is_file() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags
