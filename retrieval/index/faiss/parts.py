"""What a FAISS index is made of: the index itself, and what it wraps."""

import re
from collections.abc import Iterator
from typing import Any

# What this package builds. An id map would rename rows, and shards or replicas are made on a GPU and never written.
_KNOWN = re.compile(
    r"Index(PreTransform|Refine(Flat|Panorama)?|Flat(IP)?(Panorama)?|ScalarQuantizer|PQ(FastScan)?|RaBitQ(FastScan)?"
    r"|HNSW(Flat|SQ|PQ|RaBitQ|Cagra|FlatPanorama)|NSG(Flat|SQ|PQ)"
    r"|IVF(Flat(Panorama)?|ScalarQuantizer|PQ(FastScan)?|RaBitQ(FastScan)?)"
    r"|(IVF)?(Product)?(Residual|LocalSearch)Quantizer(FastScan)?)"
)
_WRAPPED = ("index", "base_index", "refine_index", "quantizer", "storage")


def parts(faiss: Any, index: Any) -> Iterator[Any]:
    """The index and every index inside it, coarse quantizers, graph storage and refiners too, by their true types."""
    part = faiss.downcast_index(index)
    yield part
    for name in _WRAPPED:
        inner = getattr(part, name, None)
        if inner is not None:
            yield from parts(faiss, inner)


def core(faiss: Any, index: Any) -> Any:
    """The index inside transforms and refiners: what decides how a search visits the items."""
    part = faiss.downcast_index(index)
    inner = getattr(part, "index", None) or getattr(part, "base_index", None)
    return part if inner is None else core(faiss, inner)


def fault(faiss: Any, index: Any) -> str:
    """Why an index may not be used here, empty for one that may: a part of an unknown kind, or of another metric."""
    for part in parts(faiss, index):
        kind = type(part).__name__
        if not _KNOWN.fullmatch(kind):
            return f"holds a part of the kind {kind}, which is not built here"
        if part.metric_type != faiss.METRIC_INNER_PRODUCT:
            return f"its part {kind} searches by another metric than the inner product"
    return ""


def is_one_of(faiss: Any, index: Any, *kinds: str) -> bool:
    """Whether the index is of one of the named classes; a build without a class has no such index."""
    return isinstance(index, tuple(getattr(faiss, kind) for kind in kinds if hasattr(faiss, kind)))


def reason(error: BaseException) -> str:
    """The sentence of a FAISS error that a person can use: C++ signatures and source lines stand before it."""
    return str(error).rsplit("Error: ", 1)[-1].rsplit(".cpp:", 1)[-1].split(": ", 1)[-1].strip()
