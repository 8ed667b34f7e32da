"""From a trained index to a filled one, within the memory of the index itself and a block of rows."""

from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from retrieval.core.seeds import derive_seed
from retrieval.index.faiss.checkpoints import Checkpoints
from retrieval.index.faiss.parts import is_one_of

BLOCK = 1 << 17
_LINKED = 1 << 16
_STEPS_OF_A_GRAPH = 8


def fill(
    faiss: Any, index: Any, vectors: Float32[np.ndarray, "n d"], checkpoints: Checkpoints, lists: Int32[np.ndarray, "n"] | None = None
) -> Any:
    """Add every vector; the index itself, or the one that a checkpoint went on with.

    Args:
        faiss: the module.
        index: trained and empty.
        vectors: row i gets the id i.
        checkpoints: what was done before.
        lists: of every row, where they are known.
    """
    part = faiss.downcast_index(index)
    if is_one_of(faiss, part, "IndexRefine"):
        # A graph read from a checkpoint could not take the place of the one inside.
        kept = Checkpoints() if is_one_of(faiss, part.base_index, "IndexHNSW") else checkpoints
        fill(faiss, part.base_index, vectors, kept, lists)
        part.refine_index.add(vectors)
        part.ntotal = len(vectors)
    elif _has_plain_lists(faiss, part):
        _fill_lists(faiss, part, vectors, assign(part.quantizer, vectors, checkpoints) if lists is None else lists)
    elif is_one_of(faiss, part, "IndexIVF", "IndexPreTransform"):
        for first in range(0, len(vectors), BLOCK):
            part.add(vectors[first : first + BLOCK])
    elif is_one_of(faiss, index, "IndexHNSW"):
        return _linked(faiss, index, vectors, checkpoints)
    else:
        # Flat codes that are added at once take no more room than they need.
        part.add(vectors)
    return index


def assign(
    quantizer: Any, vectors: Float32[np.ndarray, "n d"], checkpoints: Checkpoints, shard: tuple[int, int] = (0, 1)
) -> Int32[np.ndarray, "n"]:
    """The list of every row; with a shard (i, m) only every m-th block from the i-th, and 0 elsewhere."""
    lists = np.zeros(len(vectors), dtype=np.int32)
    number, of = shard
    for first in range(number * BLOCK, len(vectors), of * BLOCK):
        block = vectors[first : first + BLOCK]
        lists[first : first + BLOCK] = checkpoints.lists(first, partial(_nearest, quantizer, block))
    return lists


def _nearest(quantizer: Any, block: Float32[np.ndarray, "m d"]) -> Int32[np.ndarray, "m"]:
    nearest: Int32[np.ndarray, m] = quantizer.search(block, 1)[1][:, 0].astype(np.int32)
    return nearest


def _has_plain_lists(faiss: Any, part: Any) -> bool:
    # Fast-scan codes lie in blocks of 32 and Panorama's by levels: what is written to them as plain lists corrupts memory.
    if not is_one_of(faiss, part, "IndexIVF") or is_one_of(faiss, part, "IndexIVFFastScan"):
        return False
    return type(faiss.downcast_InvertedLists(part.invlists)).__name__ == "ArrayInvertedLists"


def _fill_lists(faiss: Any, ivf: Any, vectors: Float32[np.ndarray, "n d"], lists: Int32[np.ndarray, "n"]) -> None:
    # Lists that grow by doubling hold up to twice their contents.
    for number, size in enumerate(np.bincount(lists, minlength=ivf.nlist)):
        ivf.invlists.resize(number, int(size))
        ivf.invlists.resize(number, 0)
    for first in range(0, len(vectors), BLOCK):
        block = np.ascontiguousarray(vectors[first : first + BLOCK])
        rows = np.arange(first, first + len(block), dtype=np.int64)
        own = lists[first : first + BLOCK].astype(np.int64)
        ivf.add_core(len(block), faiss.swig_ptr(block), faiss.swig_ptr(rows), faiss.swig_ptr(own))


def _linked(faiss: Any, index: Any, vectors: Float32[np.ndarray, "n d"], checkpoints: Checkpoints) -> Any:
    """A graph, linked in steps that depend on the number of rows alone.

    Levels are drawn here and not by FAISS, whose generator is no part of a file.
    """
    index = checkpoints.graph(faiss) or index
    levels, step = _levels(faiss, index, len(vectors)), max(_LINKED, -(-len(vectors) // _STEPS_OF_A_GRAPH))
    while index.ntotal < len(vectors):
        last = min(len(vectors), index.ntotal + step)
        faiss.copy_array_to_vector(levels[:last], index.hnsw.levels)
        index.add(vectors[index.ntotal : last])
        if last < len(vectors):
            checkpoints.keep_graph(faiss, index)
    return index


def _levels(faiss: Any, index: Any, count: int) -> Int32[np.ndarray, "n"]:
    """How many levels each row is part of: 1 + level, by the graph's own distribution."""
    bounds = np.cumsum(faiss.vector_to_array(index.hnsw.assign_probas))
    draws = np.random.default_rng(derive_seed("index", "levels")).random(count)
    levels: Int32[np.ndarray, n] = (1 + np.minimum(np.searchsorted(bounds, draws, side="right"), len(bounds) - 1)).astype(np.int32)
    return levels
