"""A FAISS index behind the search contract: any kind, inner product, rows that come and go."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from retrieval.core.errors import UsageError
from retrieval.core.logging import get_logger
from retrieval.index.abstract import AbstractIndex, Hits, as_vectors
from retrieval.index.faiss import devices, files
from retrieval.index.faiss.library import faiss_library
from retrieval.index.faiss.parts import core, is_one_of
from retrieval.index.faiss.search_parameters import search_parameters, takes_selector
from retrieval.index.faiss.threads import faiss_threads
from retrieval.index.faiss.tombstones import Tombstones
from retrieval.index.guard import SearchGuard
from retrieval.index.settings import IndexSettings
from retrieval.index.threads import over_chunks

_log = get_logger("index")
_DEEPER = 4
# Queries that FAISS gets at once. A product of another shape rounds differently, which moves near ties and the lists that are
# visited: blocks are counted from the first query, so that the threads do not show.
_BLOCK = 256


class FaissIndex(AbstractIndex):
    """A trained and filled FAISS index, on a GPU when the settings, the library and the kind of index allow it.

    Rows can be added and removed; `rebuild_reason` says when it is time to build anew. Searches may run in several
    threads; a change waits for them.

    Args:
        index: of FAISS, its ids the rows 0..ntotal-1.
        settings: how it is searched.
        tombstones: rows that are dead already.
        built: rows that were there when it was built, all of them by default.
        mapped: whether its contents lie in a file, so that nothing can be added.
    """

    def __init__(
        self, index: Any, settings: IndexSettings, *, tombstones: Tombstones | None = None, built: int | None = None, mapped: bool = False
    ) -> None:
        super().__init__(settings, int(index.ntotal), int(index.d))
        self._faiss = faiss_library()
        self.tombstones = tombstones or Tombstones(self.count)
        self.built, self.mapped = self.count if built is None else built, mapped
        self._exact = is_one_of(self._faiss, index, "IndexFlat")
        self._placed = devices.place(self._faiss, index, settings)
        self._guard = SearchGuard(alone=self._placed.on_gpu)
        self._fallback: devices.Placed | None = None
        self._tune()

    @property
    def is_exact(self) -> bool:
        return self._exact

    @property
    def device(self) -> str:
        return self._placed.device

    @property
    def selects(self) -> bool:
        """Whether dead rows cost a search next to nothing; elsewhere more is asked for, and the dead are struck out."""
        return takes_selector(self._faiss, self._placed.index)

    def searched_with(self, settings: IndexSettings) -> "FaissIndex":
        """The same index, not a copy, searched with other settings; its device stays."""
        other = copy.copy(self)
        other.settings = settings
        other._tune()  # noqa: SLF001 - of this class
        return other

    def without(self, blocked: Bool[np.ndarray, "n"]) -> "FaissIndex":
        """The same index, not a copy, to which blocked rows are dead; itself where nothing is blocked or all kinds of rows are read."""
        if not (self.selects and blocked.any()):
            return self
        other = copy.copy(self)
        other.tombstones = self.tombstones.and_also(blocked)
        return other

    def add(self, vectors: Float32[np.ndarray, "m d"]) -> Int64[np.ndarray, "m"]:
        """Append items; the rows that they got. Lists and codes stay as they were trained: `rebuild_reason` counts them.

        Raises:
            UsageError: the dimension differs, or the index is memory-mapped or of a kind that is built once.
            IntegrityError: a value is not finite.
        """
        vectors = as_vectors(vectors, "item vectors")
        if vectors.shape[1] != self.dimension:
            raise UsageError(f"item vectors have {vectors.shape[1]} dimensions", where="index", expected=str(self.dimension))
        self._require_growing()
        with self._guard.changing(), faiss_threads(self._faiss, 1):
            first, self._fallback = self.count, None
            self._placed.index.add(vectors)
            self.count = first + len(vectors)
            self.tombstones.grow(self.count)
        return np.arange(first, self.count, dtype=np.int64)

    def _require_growing(self) -> None:
        if self.mapped:
            raise UsageError("a memory-mapped index takes no items", where="index.mmap", remedy="read it with index.mmap = false")
        if is_one_of(self._faiss, core(self._faiss, self._placed.index), "IndexNSG", "GpuIndexCagra"):
            raise UsageError(
                "this kind of graph takes no items after it is built", where="index.factory", remedy="use HNSW32, or build anew"
            )

    def remove(self, rows: Int64[np.ndarray, "m"]) -> None:
        """Never answer these rows again. They keep their numbers, and `count` keeps them.

        Raises:
            UsageError: a row is not in the index.
        """
        with self._guard.changing():
            self.tombstones.bury(np.asarray(rows, dtype=np.int64))

    @property
    def rebuild_reason(self) -> str:
        """Why the index should be built anew, empty while it need not: dead rows cost time, added ones were never trained on."""
        share, most = (self.tombstones.number + self.count - self.built) / max(1, self.built), self.settings.rebuild_share
        if share <= most:
            return ""
        changes = f"{self.tombstones.number} rows removed from and {self.count - self.built} added to {self.built}"
        return f"{changes}: more than index.rebuild_share = {most:g}"

    def write(self, path: Path) -> None:
        """Write one file with the index and its tombstones; an index on a GPU is copied back first.

        Raises:
            ResourceError: the disk is full or may not be written.
        """
        with self._guard.searching():
            files.write(self._faiss, devices.on_cpu(self._faiss, self._placed), self.tombstones, self.built, path)

    def _tune(self) -> None:
        """Where a search takes no parameters, they are set on the index."""
        devices.tune_copies(self._faiss, self._placed, self.settings.nprobe)
        inner = core(self._faiss, self._placed.index)
        if is_one_of(self._faiss, inner, "IndexNSG"):
            inner.nsg.search_L = self.settings.ef_search

    def _search(self, queries: Float32[np.ndarray, "q d"], n: int) -> Hits:
        with self._guard.searching():
            try:
                return self._living(self._placed, queries, n)
            except RuntimeError as error:
                if not (self._placed.on_gpu and devices.is_out_of_gpu_memory(error)):
                    raise
                return self._living(self._fall_back("a search does not fit its memory"), queries, n)

    def _within_limits(self, placed: devices.Placed, n: int) -> devices.Placed:
        why = devices.too_deep(self._faiss, placed, n, self.settings.nprobe)
        return self._fall_back(why) if why else placed

    def _fall_back(self, why: str) -> devices.Placed:
        if self._fallback is None:
            _log.warning("searched on the CPU, not on the GPU", why=why)
            self._fallback = devices.Placed(devices.on_cpu(self._faiss, self._placed), on_gpu=False)
        return self._fallback

    def _living(self, placed: devices.Placed, queries: Float32[np.ndarray, "q d"], n: int) -> Hits:
        if not self.tombstones.number:
            return self._hits(placed, queries, n, None)
        if takes_selector(self._faiss, placed.index):
            return self._hits(placed, queries, n, self.tombstones.selector(self._faiss))
        return self._struck_out(placed, queries, n)

    def _struck_out(self, placed: devices.Placed, queries: Float32[np.ndarray, "q d"], n: int) -> Hits:
        """Ask for more and leave out the dead, deeper until every query has its n or all there is."""
        living = max(1, self.count - self.tombstones.number)
        m = min(self.count, -(-n * self.count // living) + n)
        while True:
            found = self._hits(placed, queries, m, None)
            alive = (found.rows >= 0) & ~self.tombstones.dead[found.rows]
            if m == self.count or (alive.sum(axis=1) >= min(n, living)).all():
                return _first_of(found, alive, n)
            m = min(self.count, m * _DEEPER)

    def _hits(self, placed: devices.Placed, queries: Float32[np.ndarray, "q d"], n: int, selector: Any) -> Hits:
        placed = self._within_limits(placed, n)
        hits = Hits(np.empty((len(queries), n), np.int64), np.empty((len(queries), n), np.float32))
        parameters = None if placed.several else search_parameters(self._faiss, placed.index, self.settings, n, selector)
        threads = 1 if placed.on_gpu else self.settings.threads
        block = max(1, len(queries)) if placed.on_gpu else _BLOCK
        over_chunks(self._search_blocks, -(-len(queries) // block), threads, block, placed.index, parameters, queries, hits)
        hits.scores[hits.rows < 0] = -np.inf
        return hits

    def _search_blocks(self, start: int, stop: int, block: int, index: Any, parameters: Any, queries: np.ndarray, hits: Hits) -> None:
        # Our threads share out the queries and FAISS keeps to one each: its own wait for each other by spinning, which
        # on a machine with other work to do costs up to a hundred times the search.
        with faiss_threads(self._faiss, 1):
            for part in (slice(number * block, (number + 1) * block) for number in range(start, stop)):
                index.search(queries[part], hits.rows.shape[1], params=parameters, D=hits.scores[part], I=hits.rows[part])


def _first_of(found: Hits, alive: np.ndarray, n: int) -> Hits:
    """The first n living hits of each query, in their order, and fillers where there are fewer."""
    order = np.argsort(~alive, axis=1, kind="stable")[:, :n]
    rows, scores = (np.take_along_axis(values, order, axis=1) for values in (found.rows, found.scores))
    kept = np.take_along_axis(alive, order, axis=1)
    return Hits(np.where(kept, rows, -1), np.where(kept, scores, -np.inf).astype(np.float32))
