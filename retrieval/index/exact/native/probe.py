"""Whether instructions can be emitted and do what they should, found by emitting and running them once."""

from functools import cache
from typing import Any

import numpy as np
from numba import njit

from retrieval.core.aligned import aligned_zeros
from retrieval.core.logging import get_logger
from retrieval.index.exact.native.instructions import COLUMNS, ITEMS, LANES, VECTORS, tile_config
from retrieval.index.exact.native.intrinsics import begin, end, multiply

_log = get_logger("index")


@cache
def works(instructions: type[Any], pairs: int, pair: int, *, bits: bool) -> bool:
    """Whether a product of small whole numbers by these instructions is right; a step multiplies `pairs` times `pair` dimensions.

    Another release of numba or LLVM may refuse the code; then another engine searches.
    """
    try:
        return _product_is_right(instructions, pairs, pair, bits)
    # Typing, lowering and LLVM's parser have no common base class.
    except Exception as error:
        _log.info("instructions cannot be compiled", instructions=instructions.__name__, why=str(error).partition("\n")[0])
        return False


def _product_is_right(instructions: type[Any], pairs: int, pair: int, bits: bool) -> bool:
    count, step = ITEMS[instructions], pairs * pair
    rows, columns = np.arange(1.0, count + 1), np.arange(float(COLUMNS)).reshape(VECTORS, LANES)
    items = _lowered(np.broadcast_to(rows[:, None], (count, step)), bits)
    factor = _lowered(np.broadcast_to(columns[:, None, :, None], (VECTORS, pairs, LANES, pair)), bits)
    out = aligned_zeros((VECTORS, count, LANES), np.float32)
    _run(instructions(count, tile_config()), items, step, factor, out.reshape(-1))
    return bool(np.array_equal(out, step * columns[:, None] * rows[:, None]))


def _lowered(values: np.ndarray, bits: bool) -> np.ndarray:
    lowered = aligned_zeros((values.size,), np.uint16 if bits else np.float32)
    numbers = values.astype(np.float32).reshape(-1)
    lowered[:] = numbers.view(np.uint32) >> np.uint32(16) if bits else numbers
    return lowered


@njit(cache=True, nogil=True)
def _run(instructions: Any, items: np.ndarray, width: int, columns: np.ndarray, out: np.ndarray) -> None:
    begin(instructions, instructions.config)
    multiply(instructions, items, 0, width, columns, 0, 1, out, 0)
    end(instructions)
