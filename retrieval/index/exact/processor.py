"""What the processor can do, and what numba's code generator may use of it."""

from functools import cache

from llvmlite.binding import get_host_cpu_features
from numba.core.registry import cpu_target

# The first generation of GPUs with bfloat16.
_AMPERE = 8


@cache
def processor_has(*features: str) -> bool:
    """Whether the processor and its operating system offer every one of these features (LLVM's names)."""
    try:
        found = get_host_cpu_features()
    except RuntimeError:
        return False
    return all(found.get(feature) for feature in features)


@cache
def has_gpu() -> bool:
    """Whether torch sees a GPU that multiplies bfloat16."""
    import torch

    return torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= _AMPERE


@cache
def compiler_has(*features: str) -> bool:
    """Whether compiled code may use every one of these features.

    Less than the processor has where NUMBA_CPU_NAME or NUMBA_CPU_FEATURES say so. An instruction that the generator was
    not allowed cannot be selected, and LLVM then ends the process.
    """
    allowed = cpu_target.target_context.codegen().magic_tuple()[2].split(",")
    return all(f"+{feature}" in allowed for feature in features)
