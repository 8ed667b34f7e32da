"""The instruction sets a fused scan can be made of, and which of them this machine has."""

import ctypes
import platform
import sys
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from retrieval.core.aligned import aligned_zeros
from retrieval.index.exact.processor import compiler_has, processor_has

# Columns of a product (users times interests) are multiplied 64 at a time: four vectors of 16 float32 numbers.
LANES, VECTORS = 16, 4
COLUMNS = LANES * VECTORS
# Linux, x86-64: asm/prctl.h and the number of the state component in Intel's manual.
_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18
_PALETTE, _TILES, _ROWS, _ROW_BYTES = 1, 8, 16, 64


class Amx(NamedTuple):
    """Tiles of bfloat16 (Intel AMX): 16 items x 16 columns x 32 dimensions an instruction."""

    items: int
    config: np.ndarray


class Dot(NamedTuple):
    """Pairs of bfloat16 (AVX512-BF16): 16 columns x 2 dimensions an instruction."""

    items: int
    config: np.ndarray


class Fma(NamedTuple):
    """float32 multiplications with addition, in vectors as wide as the processor's."""

    items: int
    config: np.ndarray


# Items whose products are held in registers at a time.
ITEMS: dict[type[Any], int] = {Amx: 16, Dot: 6, Fma: 6}


def has_amx() -> bool:
    """Whether the processor has tiles of bfloat16, the system lets this process use them and numba may emit them."""
    features = ("amx-tile", "amx-bf16", "avx512f")
    return processor_has(*features) and compiler_has(*features) and _may_use_tiles()


def has_dot() -> bool:
    """Whether the processor has AVX512-BF16 and numba may emit it."""
    features = ("avx512f", "avx512bf16")
    return processor_has(*features) and compiler_has(*features)


def tile_config() -> np.ndarray:
    """Eight tiles of 16 rows of 64 bytes, as LDTILECFG reads it."""
    config = aligned_zeros((64,), np.uint8)
    config[0] = _PALETTE
    config[16 : 16 + 2 * _TILES : 2] = _ROW_BYTES
    config[48 : 48 + _TILES] = _ROWS
    return config


@cache
def _may_use_tiles() -> bool:
    # The state of the tiles is 8 KB a thread, so Linux wants to be asked before it saves that at every switch.
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    return bool(ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA) == 0)
