"""The fused scan: products of a few items with 64 columns, tested where they lie. Compiled, without the GIL."""

from typing import Any

import numpy as np
from numba import njit

from retrieval.index.exact.intrinsics import lowest_bit
from retrieval.index.exact.kernels import BLOCK, set_cut, set_cuts, settle
from retrieval.index.exact.native.instructions import LANES, VECTORS
from retrieval.index.exact.native.intrinsics import begin, end, multiply, reaching

Array = np.ndarray


@njit(cache=True, nogil=True)
def scan_fused(  # noqa: C901 - numba counts references at every call, which would cost more than what is called
    instructions: Any,
    items: Array,
    first: int,
    count: int,
    factor: Array,
    heads: int,
    products: Array,
    n: int,
    group: tuple[Array, ...],
    catalog: tuple[Array, ...],
    users: tuple[Array, ...],
) -> bool:
    """Offer positions first..first + count - 1 to a group; false when no later position can belong to any result.

    items: [> count, width], a tile of rows more than are looked at. factor: [tiles of 64 columns, max(1, heads / 4),
    steps, 4, pairs, 16, 1 or 2]. products: float32 [max(4, heads) x items of a tile x 16].
    """
    flat, columns, width = items.reshape(-1), factor.reshape(-1), items.shape[1]
    positions, values, sizes, cuts = group[0], group[1], group[2], group[5]
    tile, capacity = instructions.items, positions.shape[1]
    tiles, parts, steps = factor.shape[0], factor.shape[1], factor.shape[2]
    vectors, size = max(1, VECTORS // heads), columns.shape[0] // (tiles * parts)
    scratch = np.empty(capacity)
    begin(instructions, instructions.config)
    alive = True
    for block in range(0, count, BLOCK):
        alive = set_cuts(first + block, group, catalog, 0.0, False)[1]
        if not alive:
            break
        stop = min(block + BLOCK, count)
        for part in range(tiles):
            for item in range(block, stop, tile):
                for some in range(parts):
                    place = some * VECTORS * tile * LANES
                    multiply(instructions, flat, item * width, width, columns, (part * parts + some) * size, steps, products, place)
                for vector in range(vectors):
                    lanes, place = (part * vectors + vector) * LANES, vector * heads * tile * LANES
                    mask = reaching(instructions, products, place, heads, cuts, lanes)
                    while mask != 0:
                        lane = lowest_bit(mask)
                        mask &= mask - np.uint32(1)
                        user = lanes + lane
                        for at in range(min(tile, stop - item)):
                            best = products[place + at * LANES + lane]
                            for head in range(1, heads):
                                best = max(best, products[place + (head * tile + at) * LANES + lane])
                            if best >= cuts[user]:
                                kept = sizes[user, 0]
                                positions[user, kept], values[user, kept] = first + item + at, best
                                sizes[user, 0] = kept + 1
                                if kept + 1 == capacity:
                                    settle(user, n, group, catalog, users, 0.0, scratch)
                                    set_cut(user, first + item, group, catalog, 0.0, False)
    end(instructions)
    return alive
