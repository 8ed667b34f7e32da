"""The class of search parameters that each kind of index wants, behind every wrapper.

FAISS refuses parameters of the wrong class, or of the wrong depth; a wrapper wants its own class around the one of what it
wraps. Parameters travel with the call: nothing is set on the index, so searches with other settings never disturb each other.
"""

from collections.abc import Callable
from typing import Any

from retrieval.index.faiss.parts import core, is_one_of
from retrieval.index.settings import IndexSettings

_IVF = ("IndexIVF", "GpuIndexIVF")
_GRAPHS = ("IndexHNSW",)


def search_parameters(faiss: Any, index: Any, settings: IndexSettings, n: int, selector: Any = None) -> Any:
    """The parameters of a search for n items, None where the kind of index takes none.

    Args:
        faiss: the module.
        index: on a CPU or on one GPU.
        settings: `nprobe`, `ef_search` and `refine_factor` are used where they apply.
        n: hits asked for.
        selector: a faiss.IDSelector of the rows that may be found; only where `takes_selector` holds.
    """
    part = faiss.downcast_index(index)
    for kinds, make in _MAKERS:
        if is_one_of(faiss, part, *kinds):
            return make(faiss, part, settings, n, selector)
    return faiss.SearchParameters(sel=selector) if selector is not None else None


def takes_selector(faiss: Any, index: Any) -> bool:
    """Whether a selector costs next to nothing.

    Inverted lists and graphs test it as they go. Flat indexes leave the matrix product for it, at a sixth of the speed;
    NSG, fast-scan PQ without lists and GPU indexes refuse it.
    """
    inner = core(faiss, index)
    return is_one_of(faiss, inner, "IndexIVF", "IndexHNSW")


def _pre_transform(faiss: Any, part: Any, settings: IndexSettings, n: int, selector: Any) -> Any:
    inner = search_parameters(faiss, part.index, settings, n, selector)
    return None if inner is None else faiss.SearchParametersPreTransform(index_params=inner)


def _refine(faiss: Any, part: Any, settings: IndexSettings, n: int, selector: Any) -> Any:
    factor = max(1.0, min(settings.refine_factor, part.ntotal / n))
    inner = search_parameters(faiss, part.base_index, settings, int(n * factor), selector)
    return faiss.IndexRefineSearchParameters(k_factor=factor, **({} if inner is None else {"base_index_params": inner}))


def _lists(name: str) -> Callable[..., Any]:
    def make(faiss: Any, part: Any, settings: IndexSettings, _n: int, selector: Any) -> Any:
        probes = min(settings.nprobe, int(part.nlist))
        more = {} if selector is None else {"sel": selector}
        quantizer = faiss.downcast_index(part.quantizer) if hasattr(part, "quantizer") else None
        if is_one_of(faiss, quantizer, "IndexHNSW"):
            # A queue shorter than what is asked for finds lists that are not the nearest.
            more["quantizer_params"] = faiss.SearchParametersHNSW(efSearch=max(settings.ef_search, probes))
        return getattr(faiss, name)(nprobe=probes, **more)

    return make


def _cagra(faiss: Any, _part: Any, settings: IndexSettings, n: int, _selector: Any) -> Any:
    return faiss.SearchParametersCagra(itopk_size=max(settings.ef_search, n))


def _graph(faiss: Any, _part: Any, settings: IndexSettings, _n: int, selector: Any) -> Any:
    more = {} if selector is None else {"sel": selector}
    return faiss.SearchParametersHNSW(efSearch=settings.ef_search, **more)


# The narrower class stands first.
_MAKERS: tuple[tuple[tuple[str, ...], Callable[..., Any]], ...] = (
    (("IndexPreTransform",), _pre_transform),
    (("IndexRefine",), _refine),
    (("IndexIVFRaBitQ", "IndexIVFRaBitQFastScan"), _lists("IVFRaBitQSearchParameters")),
    (("IndexIVFPQ",), _lists("IVFPQSearchParameters")),
    (_IVF, _lists("SearchParametersIVF")),
    (("GpuIndexCagra",), _cagra),
    (_GRAPHS, _graph),
)
