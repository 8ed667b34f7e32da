"""LLVM code for the products of a few items with 64 columns, and for the test whether one reaches its cut.

Indexes count elements from the start of an array; nothing here checks a bound, the scan around it does.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from retrieval.index.exact.native.instructions import ITEMS, LANES, VECTORS, Amx, Dot, Fma
from retrieval.index.exact.processor import compiler_has

# numba has no types.
_declare: Callable[..., Any] = cgutils.get_or_insert_function
_variable: Callable[..., Any] = cgutils.alloca_once_value
_BYTE, _SHORT, _INT, _INDEX, _FLOAT, _NOTHING = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType(), ir.VoidType()
_FLOATS, _PAIRS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT, LANES)
_FIRST_LANE = ir.Constant(ir.VectorType(_INT, LANES), [0] * LANES)
# Of a tile: bytes, bytes of a row, and the registers for items and for columns beside the four sums.
_TILE, _ROW, _OF_ITEMS, _OF_COLUMNS = 1024, 64, 4, (5, 6, 7)


class _BFloat(ir.Type):  # type: ignore[misc]
    """LLVM's bfloat, which llvmlite does not name."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


_BFLOATS = ir.VectorType(_BFloat(), 2 * LANES)


class _Emitter:
    """A builder with the few things said often."""

    def __init__(self, context: Any, builder: Any) -> None:
        self.context, self.builder = context, builder

    def at(self, array_type: Any, array: Any, index: Any) -> Any:
        """A pointer to an element of an array."""
        return self.builder.gep(self.context.make_array(array_type)(self.context, self.builder, array).data, [index])

    def past(self, pointer: Any, count: Any, step: int = 1) -> Any:
        """A pointer `count` times `step` elements further on."""
        return self.builder.gep(pointer, [self.builder.mul(count, ir.Constant(_INDEX, step))])

    def load(self, pointer: Any, kind: Any, align: int = 4) -> Any:
        return self.builder.load(self.builder.bitcast(pointer, kind.as_pointer()), align=align)

    def store(self, value: Any, pointer: Any) -> None:
        self.builder.store(value, self.builder.bitcast(pointer, value.type.as_pointer()), align=4)

    def call(self, name: str, result: Any, *arguments: Any) -> Any:
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        return self.builder.call(_declare(self.builder.module, kind, name), arguments)

    def tile(self, name: str, *registers: int) -> None:
        self.call(f"llvm.x86.{name}", _NOTHING, *[ir.Constant(_BYTE, register) for register in registers])

    def move_tile(self, name: str, register: int, pointer: Any, stride: Any) -> None:
        self.call(f"llvm.x86.{name}", _NOTHING, ir.Constant(_BYTE, register), pointer, stride)

    def bytes(self, pointer: Any) -> Any:
        return self.builder.bitcast(pointer, _BYTE.as_pointer())

    def larger(self, left: Any, right: Any) -> Any:
        return self.builder.select(self.builder.fcmp_ordered(">", left, right), left, right)


def _multiply(
    _context: Any, instructions: Any, items: Any, item: Any, width: Any, columns: Any, column: Any, steps: Any, out: Any, place: Any
) -> Any:
    """Products of some items from element `item` on with 64 columns from element `column` on, to out [4, items, 16] from `place` on.

    items: rows of `width` elements. columns: [steps, 4 vectors, pairs, 16 lanes, 1 or 2]. The type of `instructions`
    says which are used.
    """
    signature = types.void(instructions, items, item, width, columns, column, steps, out, place)

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder)
        source = emit.at(items, arguments[1], arguments[2])
        factor = emit.at(columns, arguments[4], arguments[5])
        target = emit.at(out, arguments[7], arguments[8])
        kind = instructions.instance_class
        (_tile_products if kind is Amx else _lane_products)(emit, kind, source, arguments[3], factor, arguments[6], target)
        return context.get_dummy_value()

    return signature, generate


multiply: Callable[..., None] = intrinsic(_multiply)


def _tile_products(emit: _Emitter, _kind: Any, source: Any, width: Any, factor: Any, steps: Any, target: Any) -> None:
    builder, row = emit.builder, ir.Constant(_INDEX, _ROW)
    source, factor, target = emit.bytes(source), emit.bytes(factor), emit.bytes(target)
    stride = builder.mul(width, ir.Constant(_INDEX, 2))
    for vector in range(VECTORS):
        emit.tile("tilezero", vector)
    with cgutils.for_range(builder, steps) as loop:
        emit.move_tile("tileloadd64", _OF_ITEMS, emit.past(source, loop.index, _ROW), stride)
        tiles = emit.past(factor, loop.index, VECTORS * _TILE)
        for vector in range(VECTORS):
            register = _OF_COLUMNS[vector % len(_OF_COLUMNS)]
            emit.move_tile("tileloadd64", register, emit.past(tiles, ir.Constant(_INDEX, vector), _TILE), row)
            emit.tile("tdpbf16ps", vector, _OF_ITEMS, register)
    for vector in range(VECTORS):
        emit.move_tile("tilestored64", vector, emit.past(target, ir.Constant(_INDEX, vector), _TILE), row)


def _lane_products(emit: _Emitter, kind: Any, source: Any, width: Any, factor: Any, steps: Any, target: Any) -> None:
    # 24 sums, four factors and one item fill 32 registers; where there are 16 half as wide, one vector at a time does.
    together = VECTORS if compiler_has("avx512f") else 1
    for first in range(0, VECTORS, together):
        _few_vectors(emit, kind, source, width, factor, steps, target, range(first, first + together))


def _few_vectors(emit: _Emitter, kind: Any, source: Any, width: Any, factor: Any, steps: Any, target: Any, vectors: range) -> None:
    builder, count, pair = emit.builder, ITEMS[kind], 2 if kind is Dot else 1
    vector_type, scalar_type = (_PAIRS, _INT) if kind is Dot else (_FLOATS, _FLOAT)
    sums = {(i, v): _variable(builder, ir.Constant(_FLOATS, [0.0] * LANES)) for i in range(count) for v in vectors}
    rows = [emit.past(source, builder.mul(width, ir.Constant(_INDEX, i))) for i in range(count)]
    with cgutils.for_range(builder, steps) as loop:
        step = emit.past(factor, loop.index, VECTORS * LANES * pair)
        factors = {v: emit.load(emit.past(step, ir.Constant(_INDEX, v), LANES * pair), vector_type) for v in vectors}
        for i in range(count):
            # A row of an odd number of elements puts its pairs at odd addresses.
            scalar = emit.load(emit.past(rows[i], loop.index, pair), scalar_type, align=2)
            spread = _spread(builder, scalar, vector_type)
            for v in vectors:
                builder.store(_add_product(emit, kind, builder.load(sums[i, v]), factors[v], spread), sums[i, v])
    for (i, v), total in sums.items():
        emit.store(builder.load(total), emit.past(target, ir.Constant(_INDEX, v * count + i), LANES))


def _spread(builder: Any, scalar: Any, vector_type: Any) -> Any:
    nothing = ir.Constant(vector_type, ir.Undefined)
    return builder.shuffle_vector(builder.insert_element(nothing, scalar, ir.Constant(_INT, 0)), nothing, _FIRST_LANE)


def _add_product(emit: _Emitter, kind: Any, total: Any, factor: Any, spread: Any) -> Any:
    if kind is Fma:
        return emit.call("llvm.fmuladd.v16f32", _FLOATS, factor, spread, total)
    pairs = [emit.builder.bitcast(value, _BFLOATS) for value in (factor, spread)]
    return emit.call("llvm.x86.avx512bf16.dpbf16ps.512", _FLOATS, total, *pairs)


def _reaching(_context: Any, instructions: Any, products: Any, place: Any, heads: Any, cuts: Any, lane: Any) -> Any:
    """The lanes, a mask uint32, for which one of the items reaches cuts[lane : lane + 16] in one of the heads.

    products: float32 [heads, items, 16] from `place` on.
    """
    signature = types.uint32(instructions, products, place, heads, cuts, lane)
    count = ITEMS[instructions.instance_class]

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        emit = _Emitter(context, builder)
        source, cut = emit.at(products, arguments[1], arguments[2]), emit.load(emit.at(cuts, arguments[4], arguments[5]), _FLOATS)
        best = _variable(builder, ir.Constant(_FLOATS, [-float("inf")] * LANES))
        with cgutils.for_range(builder, arguments[3]) as loop:
            head = emit.past(source, loop.index, count * LANES)
            rows = [emit.load(emit.past(head, ir.Constant(_INDEX, i), LANES), _FLOATS) for i in range(count)]
            builder.store(_largest(emit, [*rows, builder.load(best)]), best)
        mask = builder.fcmp_ordered(">=", builder.load(best), cut)
        return builder.zext(builder.bitcast(mask, _SHORT), _INT)

    return signature, generate


reaching: Callable[..., Any] = intrinsic(_reaching)


def _largest(emit: _Emitter, values: list[Any]) -> Any:
    while len(values) > 1:
        pairs = zip(values[::2], values[1::2], strict=False)
        values = [emit.larger(left, right) for left, right in pairs] + values[len(values) // 2 * 2 :]
    return values[0]


def _begin(_context: Any, instructions: Any, config: Any) -> Any:
    """Make the processor ready for the instructions; every `begin` of a thread wants its `end`."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        if instructions.instance_class is Amx:
            emit = _Emitter(context, builder)
            emit.call("llvm.x86.ldtilecfg", _NOTHING, emit.bytes(emit.at(config, arguments[1], ir.Constant(_INDEX, 0))))
        return context.get_dummy_value()

    return types.void(instructions, config), generate


def _end(_context: Any, instructions: Any) -> Any:
    """Give the processor's state back."""

    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        if instructions.instance_class is Amx:
            _Emitter(context, builder).call("llvm.x86.tilerelease", _NOTHING)
        return context.get_dummy_value()

    return types.void(instructions), generate


begin: Callable[..., None] = intrinsic(_begin)
end: Callable[..., None] = intrinsic(_end)
