"""Engines whose products never leave the cache."""

from collections.abc import Callable
from typing import Any

import numpy as np

from retrieval.core.aligned import aligned_zeros
from retrieval.index.exact.engines import AbstractEngine, Arrays
from retrieval.index.exact.kernels import BLOCK
from retrieval.index.exact.lowering.items import SPARE
from retrieval.index.exact.lowering.users import LoweredUsers
from retrieval.index.exact.native.instructions import COLUMNS, ITEMS, LANES, VECTORS, Amx, Dot, Fma, has_amx, has_dot, tile_config
from retrieval.index.exact.native.kernels import scan_fused
from retrieval.index.exact.native.probe import works

# float32 is lowered block by block: so many items at a time.
_FLOAT_BLOCK = 4 * BLOCK


class FusedEngine(AbstractEngine):
    """Products of a few items with 64 columns at a time, tested where they lie: in registers and in the first-level cache.

    instructions: their type; probe: whether the processor has them and numba may emit them.
    pairs, pair: how many dimensions of how many elements a step multiplies.
    """

    columns = 1024
    instructions: Any
    probe: Callable[[], bool]
    pairs: int
    pair: int

    @classmethod
    def is_available(cls) -> bool:
        return cls.probe() and works(cls.instructions, cls.pairs, cls.pair, bits=cls.bits)

    def lanes(self, heads: int) -> int:
        return COLUMNS // min(heads, VECTORS)

    def width(self, dimension: int) -> int:
        step = self.pairs * self.pair
        return -(-dimension // step) * step

    def offer(self, lowered: LoweredUsers, n: int, group: Arrays, catalog: Arrays, users: Arrays) -> None:
        heads, tile = len(lowered.heads), ITEMS[self.instructions]
        chosen = self.instructions(tile, tile_config())
        factor, products = self._factor(lowered.heads), aligned_zeros((max(heads, VECTORS) * tile * LANES,), np.float32)
        step = len(self.items) if self.bits else _FLOAT_BLOCK
        for first in range(0, len(self.items), step):
            count = min(step, len(self.items) - first)
            if not scan_fused(chosen, self._rows(first, count), first, count, factor, heads, products, n, group, catalog, users):
                break

    def _rows(self, first: int, count: int) -> np.ndarray:
        """Lowered vectors from a position on, with a tile of rows behind them that may be multiplied and is not looked at."""
        if self.bits:
            return self.lowered.values
        rows = np.zeros((count + SPARE, self.lowered.width), np.float32)
        rows[:count] = self.lowered.block(first, first + count)
        return rows

    def _factor(self, heads: np.ndarray) -> np.ndarray:
        """Heads [heads, lanes, width] in the order that the product reads it; `scan_fused` says which."""
        count, lanes, width = heads.shape
        vectors = max(1, VECTORS // count)
        tiles, steps = lanes // (LANES * vectors), width // (self.pairs * self.pair)
        by_user = heads.reshape(count, tiles, vectors, LANES, width).transpose(1, 2, 0, 3, 4)
        split = by_user.reshape(tiles, -1, VECTORS, LANES, steps, self.pairs, self.pair)
        factor = aligned_zeros((tiles, split.shape[1], steps, VECTORS, self.pairs, LANES, self.pair), heads.dtype)
        factor[:] = split.transpose(0, 1, 4, 2, 5, 3, 6)
        return factor


class AmxEngine(FusedEngine):
    """bfloat16 in the tiles of Intel AMX."""

    name = "amx"
    bits = True
    instructions, probe, pairs, pair = Amx, staticmethod(has_amx), 16, 2


class DotEngine(FusedEngine):
    """bfloat16 in the vectors of AVX512-BF16."""

    name = "avx512-bf16"
    bits = True
    instructions, probe, pairs, pair = Dot, staticmethod(has_dot), 1, 2


class FmaEngine(FusedEngine):
    """float32 in whatever vectors the processor has."""

    name = "float32"
    bits = False
    instructions, probe, pairs, pair = Fma, staticmethod(lambda: True), 1, 1
