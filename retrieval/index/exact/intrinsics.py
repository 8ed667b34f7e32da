"""Vector instructions for compiled kernels, written as LLVM code: the same source runs on any processor LLVM knows."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

# Lanes that are compared at a time.
SEGMENT = 32
_INDEX = ir.IntType(64)
# What llvm.prefetch is told.
_READ, _KEEP, _DATA = 0, 3, 1
# numba has no types.
_declare: Callable[..., Any] = cgutils.get_or_insert_function


def _reached(_context: Any, products: Any, first: Any, cuts: Any, lane: Any) -> Any:  # noqa: ARG001 - numba reads the names
    """Which of products[first : first + 32] reach cuts[lane : lane + 32]: a mask uint32, lowest lane in the lowest bit."""
    signature = types.uint32(products, types.intp, cuts, types.intp)

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(context.get_data_type(products.dtype), SEGMENT)
        left = _load(context, builder, products, arguments[0], arguments[1], vector)
        right = _load(context, builder, cuts, arguments[2], arguments[3], vector)
        floats = isinstance(products.dtype, types.Float)
        mask = builder.fcmp_ordered(">=", left, right) if floats else builder.icmp_signed(">=", left, right)
        return builder.bitcast(mask, ir.IntType(SEGMENT))

    return signature, generate


reached: Callable[..., Any] = intrinsic(_reached)


def _load(context: Any, builder: Any, array_type: Any, array: Any, index: Any, vector: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    pointer = builder.bitcast(builder.gep(data, [index]), vector.as_pointer())
    return builder.load(pointer, align=context.get_abi_sizeof(vector.element))


def _lowest_bit(_context: Any, mask: Any) -> Any:  # noqa: ARG001
    """The position of the lowest set bit of a mask that has one."""
    signature = types.intp(types.uint32)

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        position = builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))
        return builder.zext(position, _INDEX)

    return signature, generate


lowest_bit: Callable[..., Any] = intrinsic(_lowest_bit)


def _prefetch(_context: Any, array: Any, index: Any) -> Any:  # noqa: ARG001
    """Ask for the cache line of an element, counted from the start of a contiguous array, without waiting for it."""
    signature = types.void(array, types.intp)

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        data = context.make_array(array)(context, builder, arguments[0]).data
        pointer = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        kinds = [pointer.type, *[ir.IntType(32)] * 3]
        function = _declare(builder.module, ir.FunctionType(ir.VoidType(), kinds), "llvm.prefetch.p0")
        builder.call(function, [pointer, *[ir.Constant(ir.IntType(32), value) for value in (_READ, _KEEP, _DATA)]])
        return context.get_dummy_value()

    return signature, generate


prefetch: Callable[..., None] = intrinsic(_prefetch)
