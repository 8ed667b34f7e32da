"""Exact inner-product search: the oracle that every other index is measured against."""

from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32

from retrieval.core.arrays import save_array
from retrieval.index.abstract import AbstractIndex, Hits, as_vectors, require_finite_scores
from retrieval.index.exact.calibration import chosen_engine
from retrieval.index.exact.cuda import CudaEngine
from retrieval.index.exact.engines import AbstractEngine
from retrieval.index.exact.lowering.items import OrderedItems
from retrieval.index.exact.search import ExactSearch
from retrieval.index.pools import Seen
from retrieval.index.settings import IndexSettings


class ExactIndex(AbstractIndex):
    """The items of largest score (`index.kernels`), ordered by (-score, row): the same bytes on any machine.

    A thread takes `settings.block_mb` MiB for a block of products and at most four times as much for candidates,
    whatever the number of items and users.
    """

    def __init__(self, vectors: Float32[np.ndarray, "n d"], settings: IndexSettings) -> None:
        self.vectors = as_vectors(vectors, "item vectors")
        super().__init__(settings, *self.vectors.shape)

    @property
    def is_exact(self) -> bool:
        return True

    @property
    def device(self) -> str:
        """`gpu` where the settings insist on one; with `auto` the engine is chosen when it is first needed, and says itself."""
        return "gpu" if self.settings.device == "gpu" or self.settings.engine == CudaEngine.name else "cpu"

    @cached_property
    def engine(self) -> AbstractEngine:
        """What finds the candidates; made when first asked for, because an index may be written without being searched."""
        engine = chosen_engine(self.settings, self.count, self.dimension)
        return engine(self._items, self.settings.block_mb)

    @cached_property
    def _items(self) -> OrderedItems:
        # A memory map becomes a plain view of the same pages: compiled code knows no maps.
        return OrderedItems.of(np.asarray(self.vectors), self.settings.threads)

    def search_users(self, blocked: Bool[np.ndarray, "n"], threads: int) -> ExactSearch:
        """Search of users with several interests among the items that are not blocked."""
        return ExactSearch(self.engine, blocked, threads)

    @cached_property
    def _everything(self) -> ExactSearch:
        return self.search_users(np.zeros(self.count, dtype=bool), self.settings.threads)

    def _search(self, queries: Float32[np.ndarray, "q d"], n: int) -> Hits:
        require_finite_scores(self._items.largest_norm, queries, "queries")
        interests, valid = queries[:, None].astype(np.float64), np.ones((len(queries), 1), dtype=bool)
        pools = self._everything(interests, valid, Seen.nothing(len(queries)), n)
        return Hits(pools.rows, pools.scores)

    def write(self, path: Path) -> None:
        """Write the vectors in numpy's format; FAISS is not needed to read them."""
        save_array(path, self.vectors)


def oracle(vectors: Float32[np.ndarray, "n d"], settings: IndexSettings) -> ExactIndex:
    """What other indexes are judged by: a GPU that the settings insist on for the index is used where there is one."""
    elsewhere = settings.device == "gpu" and not CudaEngine.is_available()
    return ExactIndex(vectors, settings.model_copy(update={"factory": "exact", "device": "auto" if elsewhere else settings.device}))
