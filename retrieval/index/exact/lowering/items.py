"""The catalog as the product sees it: by descending norm, scaled, in low precision."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32

from retrieval.core.aligned import aligned_zeros
from retrieval.index.exact.kernels import BLOCK
from retrieval.index.exact.lowering.kernels import round_items, squares
from retrieval.index.threads import over_chunks

# Rows behind the last, so that a product of whole tiles reads no foreign memory.
SPARE = 16
# What float64 may lose in a sum of squares and its root, and more.
_UP = 1.0 + 2.0**-20


@dataclass(frozen=True)
class OrderedItems:
    """Item rows by descending norm; rows of equal norm ascend.

    vectors: float32[N, D], all of them. order: int32[M], the rows that are searched. norms: float64[blocks], the largest
    norm of a block of positions times 1 / unit, never ascending. unit: the power of two that takes the largest component
    to at most 1.
    """

    vectors: Float32[np.ndarray, "n d"]
    order: Int32[np.ndarray, "m"]
    norms: Float64[np.ndarray, "blocks"]
    unit: float
    threads: int

    @classmethod
    def of(cls, vectors: Float32[np.ndarray, "n d"], threads: int) -> "OrderedItems":
        """Every row of the vectors."""
        squared = np.empty(len(vectors))
        over_chunks(squares, len(vectors), threads, vectors, squared)
        order = np.argsort(-squared, kind="stable").astype(np.int32)
        largest = max(float(vectors.max(initial=0.0)), -float(vectors.min(initial=0.0)))
        unit = math.ldexp(1.0, math.frexp(largest)[1])
        return cls(vectors, order, np.sqrt(squared[order[::BLOCK]]) / unit * _UP, unit, threads)

    def __len__(self) -> int:
        return len(self.order)

    def without(self, blocked: Bool[np.ndarray, "n"]) -> "OrderedItems":
        """The rows that are not blocked."""
        return self._of_rows(self.order[~blocked[self.order]])

    def every(self, stride: int) -> "OrderedItems":
        """Every so many-th row."""
        return self._of_rows(self.order[::stride])

    def _of_rows(self, order: Int32[np.ndarray, "m"]) -> "OrderedItems":
        squared = np.einsum("nd,nd->n", *[self.vectors[order[::BLOCK]].astype(np.float64)] * 2)
        return OrderedItems(self.vectors, order, np.sqrt(squared) / self.unit * _UP, self.unit, self.threads)

    @cached_property
    def largest_norm(self) -> float:
        """The largest norm, rounded up, in the units of the vectors."""
        return float(self.norms[0]) * self.unit if len(self) else 0.0


class LoweredItems:
    """Ordered items in float32 or bfloat16.

    bfloat16 is kept, bits uint16[M + 16, width] with zeros behind the D components and the last row; float32 is made
    block by block, because a copy would double the memory of the catalog. residuals: float64[blocks], the largest norm
    of what lowering took from an item of a block or of any later one.
    """

    def __init__(self, items: OrderedItems, *, bits: bool, width: int) -> None:
        self.items, self.width = items, width
        self.values = aligned_zeros((len(items) + SPARE if bits else 0, width), np.uint16)
        self.residuals = self._round() if bits else np.full(len(items.norms), math.sqrt(width) * 2.0**-126)

    def block(self, first: int, last: int) -> np.ndarray:
        """The lowered vectors of positions first..last-1, uint16 or float32 [last - first, width]."""
        if len(self.values):
            return self.values[first:last]
        vectors: np.ndarray = self.items.vectors[self.items.order[first:last]]
        for factor in _float32_factors(1.0 / self.items.unit):
            vectors *= factor
        return vectors

    def _round(self) -> Float64[np.ndarray, "blocks"]:
        squared = np.empty(len(self.items))
        arguments = (self.items.vectors, self.items.order, 1.0 / self.items.unit, self.values, squared)
        over_chunks(round_items, len(self.items), self.items.threads, *arguments)
        return _never_ascending(squared)


def _float32_factors(power: float) -> tuple[np.float32, ...]:
    """A power of two as factors that are normal numbers of float32."""
    exponent = math.frexp(power)[1] - 1
    if abs(exponent) < 100:
        return (np.float32(power),)
    return np.float32(math.ldexp(1.0, exponent // 2)), np.float32(math.ldexp(1.0, exponent - exponent // 2))


def _never_ascending(squared: Float64[np.ndarray, "m"]) -> Float64[np.ndarray, "blocks"]:
    """The largest residual of a block or of any later one: a bound that holds from a position on."""
    if len(squared) == 0:
        return np.zeros(0)
    largest = np.maximum.reduceat(squared, np.arange(0, len(squared), BLOCK))
    rising: np.ndarray = np.sqrt(np.maximum.accumulate(largest[::-1])[::-1]) * _UP
    return rising
