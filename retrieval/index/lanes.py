"""Sums in lanes for compiled kernels, written as LLVM vectors: one order of additions on every processor."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

LANES = 8
_VECTOR = ir.VectorType(ir.DoubleType(), LANES)
_INDEX = ir.IntType(64)


def _lane_dot(_context: Any, left: Any, right: Any, whole: Any) -> Any:  # noqa: ARG001 - numba reads the names
    """The sum of left[i] * right[i] in float64 over the first `whole` entries, a multiple of 8, of contiguous vectors.

    Lane j sums what stands at j, j + 8, ...; then the upper half of the lanes is added to the lower, until one is left.
    Products are rounded before they are added.
    """
    if {left.layout, right.layout} != {"C"}:
        raise TypingError("vectors must be contiguous")
    signature = types.float64(left, right, types.intp)

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        total = cgutils.alloca_once_value(builder, ir.Constant(_VECTOR, None))  # type: ignore[no-untyped-call]
        with cgutils.for_range_slice(builder, _INDEX(0), arguments[2], _INDEX(LANES)) as (place, _):
            values = [_lanes(context, builder, each, arguments[number], place) for number, each in enumerate((left, right))]
            builder.store(builder.fadd(builder.load(total), builder.fmul(*values)), total)
        return _halved(builder, builder.load(total))

    return signature, generate


lane_dot: Callable[..., float] = intrinsic(_lane_dot)


def _lanes(context: Any, builder: Any, array_type: Any, array: Any, place: Any) -> Any:
    """Eight values of a vector as float64."""
    element = context.get_data_type(array_type.dtype)
    pointer = builder.gep(context.make_array(array_type)(context, builder, array).data, [place])
    found = builder.load(builder.bitcast(pointer, ir.VectorType(element, LANES).as_pointer()), align=context.get_abi_sizeof(element))
    return found if element == ir.DoubleType() else builder.fpext(found, _VECTOR)


def _halved(builder: Any, lanes: Any) -> Any:
    count = LANES
    while count > 1:
        count //= 2
        halves = [_taken(builder, lanes, first, count) for first in (0, count)]
        lanes = builder.fadd(*halves)
    return builder.extract_element(lanes, _INDEX(0))


def _taken(builder: Any, lanes: Any, first: int, count: int) -> Any:
    places = ir.Constant(ir.VectorType(ir.IntType(32), count), list(range(first, first + count)))
    return builder.shuffle_vector(lanes, lanes, places)
