"""The search for the cheapest index that holds the target."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from retrieval.core.errors import ResourceError
from retrieval.core.logging import get_logger
from retrieval.index.abstract import AbstractIndex
from retrieval.index.choice.clock import Clock, latency
from retrieval.index.choice.diagnostics import Diagnostics, diagnose
from retrieval.index.choice.front import Point
from retrieval.index.choice.judge import Judge, MakeSearch, UserSearch, finding_of
from retrieval.index.choice.lists import Depths, depths_of
from retrieval.index.choice.prices import Code, Prices, codes_for
from retrieval.index.exact.cuda import CudaEngine
from retrieval.index.exact.index import oracle
from retrieval.index.faiss.build import Coarse, build_faiss, make_coarse
from retrieval.index.faiss.index import FaissIndex
from retrieval.index.faiss.library import faiss_fault, gpu_count
from retrieval.index.settings import IndexSettings

_log = get_logger("index")
# A list shorter than this is not worth its centroid.
_SHORTEST_LIST = 40
# Items below which nothing is worth comparing with a scan.
_FEWEST = 1000
# What an estimate may be too high by, before and after an index of its code was measured.
_UNSURE, _SURE = 0.6, 0.9
# Lists are doubled while that may gain a tenth, of which about half comes true, and has gained a twentieth: each doubling takes
# four times as long to cluster, and less is not worth it.
_HOPE, _GAIN = 0.9, 0.95
_SINGLE_USERS = 32
_GRAPH, _GRAPH_BYTES = "HNSW32", 4 * 66 + 8
_LONGEST_QUEUE = 4096
_TOO_LARGE = "over max_memory"


@dataclass(frozen=True)
class Choice:
    """settings: of the chosen index. index: itself, trained and filled. point: what it finds and costs. held: whether it keeps the
    target within the limits. points: everything that was tried. diagnostics: of the vectors. repeated: timings that were not quiet.
    """

    settings: IndexSettings
    index: AbstractIndex
    point: Point
    held: bool
    points: tuple[Point, ...]
    diagnostics: Diagnostics
    repeated: int


@dataclass(frozen=True)
class _Candidate:
    """An index as it is searched."""

    settings: IndexSettings
    index: AbstractIndex
    point: Point


def choose(
    vectors: Float32[np.ndarray, "n d"],
    users: tuple[Float32[np.ndarray, "u k d"], Bool[np.ndarray, "u k"]],
    settings: IndexSettings,
    make_search: MakeSearch,
    blocked: Bool[np.ndarray, "n"] | None = None,
) -> Choice:
    """The cheapest index that holds `settings.choose.target_recall` within its limits, in core-seconds a user.

    Args:
        vectors: of the items.
        users: interests and which of them are valid, of users like those to come.
        settings: `choose` says what is wanted, the rest how indexes are searched and built.
        make_search: what makes lists from an index.
        blocked: items that no list will hold.

    Raises:
        UsageError: no user has an interest.
        ResourceError: nothing fits the memory.

    Without FAISS exact search is the only candidate.
    """
    chooser = _Chooser(vectors, users, settings, make_search, blocked)
    chooser.try_exact()
    if chooser.has_faiss:
        chooser.climb()
        chooser.try_graph()
    return chooser.choice()


class _Chooser:
    def __init__(
        self,
        vectors: Float32[np.ndarray, "n d"],
        users: tuple[np.ndarray, np.ndarray],
        settings: IndexSettings,
        make_search: MakeSearch,
        blocked: Bool[np.ndarray, "n"] | None,
    ) -> None:
        self.vectors, self.settings, self.wanted, self.make_search, self.blocked = vectors, settings, settings.choose, make_search, blocked
        self.exact = oracle(vectors, settings)
        self.judge = Judge(self.exact, *users, self.wanted.n, blocked)
        fault = faiss_fault()
        if fault:
            _log.warning("exact search is the only candidate", because=fault)
        self.has_faiss = not fault
        self.clock = Clock(
            on_gpu=isinstance(self.exact.engine, CudaEngine) or (self.has_faiss and settings.device != "cpu" and gpu_count() > 0)
        )
        self.prices = Prices(vectors, self.judge, make_search, settings, self.clock)
        self.diagnostics = diagnose(self.exact, np.zeros(len(vectors), dtype=bool) if blocked is None else blocked)
        self.points: list[Point] = []
        self.best: _Candidate | None = None
        self.fallback: _Candidate | None = None

    @property
    def bar(self) -> float:
        """Core-seconds a user that a candidate has to beat."""
        return math.inf if self.best is None or self.best.point.seconds is None else self.best.point.seconds

    def try_exact(self) -> None:
        """Vectors, and a copy in half the precision."""
        count, dimension = self.vectors.shape
        memory, settings = count * (6.0 * dimension + 12), self._with("exact")
        if settings.device == "gpu" and self.exact.device != "gpu":
            self._note(settings, memory, None, "torch sees no GPU that multiplies bfloat16")
        elif self._fits(settings, memory):
            self._consider(settings, self.exact, memory, None)

    def climb(self) -> None:
        """Cluster with more lists while that pays, and with fewer where more never did."""
        count, dimension = self.vectors.shape
        if count < _FEWEST:
            return
        start = 2 ** round(math.log2(2 * math.sqrt(count)))
        codes = [code for code in codes_for(dimension) if self._fits_lists(code, start) and self._lives_here(code, start)]
        if not codes or self._cheapest(codes, start, 0.0) >= self.bar:
            return
        first = self._steps(start, 2.0, codes, (math.inf, 0.0))
        if first is not None:
            self._steps(start // 2, 0.5, codes, first)

    def _nothing(self) -> ResourceError:
        too_large = [point.memory for point in self.points if point.verdict == _TOO_LARGE]
        if not too_large:
            return ResourceError(f"no index can be built: {self.points[0].verdict}", where="index.device", remedy="device = 'auto'")
        return ResourceError(
            f"no index fits {self.wanted.max_memory / 1e6:.0f} MB",
            where="index.choose.max_memory",
            expected=f"at least {min(too_large) / 1e6:.0f} MB",
            remedy=f"allow more memory, {'' if self.has_faiss else 'install FAISS, '}or train fewer dimensions",
        )

    def _lives_here(self, code: Code, lists: int) -> bool:
        """Whether small indexes of a code could be built, and are priced now: a GPU that is insisted on takes few kinds."""
        try:
            self.prices.roofline(code, lists, 0.0)
        except ResourceError as error:
            self._note(self._with(code.factory(lists)), self._memory(code, lists), None, f"not here: {error.what}")
            return False
        return True

    def _steps(self, lists: int, factor: float, codes: list[Code], last: tuple[float, float]) -> tuple[float, float] | None:
        """Double or halve the lists while the price falls; the first step's price and scanned codes if no other was better."""
        first: tuple[float, float] | None = None
        steps = 0
        while 4 <= lists <= len(self.vectors) // _SHORTEST_LIST:
            # Twice the lists read half the codes at the very best, half the lists no fewer.
            hoped = self._cheapest(codes, lists, last[1] / max(factor, 1.0))
            if math.isfinite(last[0]) and hoped >= min(_HOPE * last[0], self.bar):
                break
            found = self._at(lists, codes)
            steps += 1
            if steps == 1:
                first = found
            if found[0] >= _GAIN * last[0]:
                break
            if steps > 1:
                first = None
            last, lists = found, int(lists * factor)
        return first

    def _cheapest(self, codes: list[Code], lists: int, scanned: float) -> float:
        return min(self.prices.roofline(code, lists, scanned) for code in codes)

    def _at(self, lists: int, codes: list[Code]) -> tuple[float, float]:
        """Cluster, price every code, and build those that could be the best; the lowest price and the codes read for it."""
        coarse = make_coarse(self.vectors, lists, self.settings)
        depths = depths_of(coarse, self.judge)
        nprobe = first_that_holds(lambda p: finding_of(depths.shares(p)).lower >= self.wanted.target_recall, 1, len(depths.scanned))
        nprobe = nprobe or len(depths.scanned)
        scanned = depths.scanned_at(nprobe)
        _log.info("clustered", lists=lists, nprobe=nprobe, scanned=round(scanned))
        for code in sorted(codes, key=lambda code: self.prices.roofline(code, lists, scanned)):
            self._try_lists(code, coarse, depths, nprobe)
        return self._cheapest(codes, lists, scanned), scanned

    def _try_lists(self, code: Code, coarse: Coarse, depths: Depths, nprobe: int) -> None:
        lists = len(coarse.centroids)
        settings, memory = self._with(code.factory(lists), nprobe=nprobe), self._memory(code, lists)
        estimated = self.prices.roofline(code, lists, depths.scanned_at(nprobe))
        if not self._fits(settings, memory) or not self._may_win(settings, memory, estimated, sure=self.prices.is_known(code)):
            return
        index = self._built(settings, memory, coarse)
        if index is None:
            return
        knobs = {p: settings.model_copy(update={"nprobe": p}) for p in _knobs(nprobe, lists)}
        slack = _SURE if self.prices.is_known(code) else _UNSURE

        def affordable(p: int) -> bool:
            return slack * self.prices.roofline(code, lists, depths.scanned_at(p)) < self.bar

        tuned = self._tuned(index, knobs, affordable)
        point = self._consider(tuned, index, memory, self.prices.roofline(code, lists, depths.scanned_at(tuned.nprobe)))
        self.prices.learn(code, point)

    def try_graph(self) -> None:
        """A graph, unless the vectors forbid it or a small one is dearer than what holds already."""
        count, dimension = self.vectors.shape
        settings, memory = self._with(_GRAPH, ef_search=self.judge.n), count * (4.0 * dimension + _GRAPH_BYTES)
        if count < _FEWEST or not self._fits(settings, memory):
            return
        if self.diagnostics.veto:
            self._note(settings, memory, None, f"vetoed: {self.diagnostics.veto}")
            return
        # It costs no less with more items, so there is no slack to give.
        try:
            estimated = self.prices.graph(_GRAPH)
        except ResourceError as error:
            self._note(settings, memory, None, f"not here: {error.what}")
            return
        if estimated >= self.bar:
            self._note(settings, memory, estimated, f"not built: at least {estimated * 1e6:.0f} us a user")
            return
        index = self._built(settings, memory)
        if index is None:
            return
        knobs = {
            ef: settings.model_copy(update={"ef_search": ef}) for ef in _knobs(self.judge.n, max(self.judge.n, min(count, _LONGEST_QUEUE)))
        }
        self._consider(self._tuned(index, knobs, lambda _: True), index, memory, estimated)

    def choice(self) -> Choice:
        """What was found."""
        chosen = self.best or self.fallback
        if chosen is None:
            raise self._nothing()
        held, final = self.best is not None, replace(chosen.point, verdict="chosen") if self.best else chosen.point
        points = tuple(final if point is chosen.point else point for point in self.points)
        return Choice(chosen.settings, chosen.index, final, held, points, self.diagnostics, self.clock.repeated)

    def _built(self, settings: IndexSettings, memory: float, coarse: Coarse | None = None) -> FaissIndex | None:
        """The index; None, and a note, where it has no place, such as a GPU too small for it."""
        try:
            return build_faiss(self.vectors, settings, coarse=coarse)
        except ResourceError as error:
            self._note(settings, memory, None, f"not here: {error.what}")
            return None

    def _tuned(self, index: FaissIndex, knobs: dict[int, IndexSettings], affordable: Callable[[int], bool]) -> IndexSettings:
        """The least knob that holds the target, the dearest affordable one where none does: more never finds less."""
        values = [value for value in knobs if affordable(value)] or [next(iter(knobs))]

        def holds(place: int) -> bool:
            search = self._search(index.searched_with(knobs[values[place]]))
            return self.judge.finding(search).lower >= self.wanted.target_recall

        place = first_that_holds(holds, 0, len(values) - 1)
        return knobs[values[-1 if place is None else place]]

    def _consider(self, settings: IndexSettings, index: AbstractIndex, memory: float, estimated: float | None) -> Point:
        """Measure an index as it is searched, and keep it if it is the best so far."""
        searched = index.searched_with(settings) if isinstance(index, FaissIndex) else index
        search = self._search(searched)
        finding = self.judge.finding(search)
        interests, valid = self.judge.interests, self.judge.valid
        seconds = self.clock.seconds(lambda: search(interests, valid)) / len(interests)
        wait = None
        if self.wanted.max_latency:
            wait = latency(lambda user: search(interests[user : user + 1], valid[user : user + 1]), min(len(interests), _SINGLE_USERS))
        point = _point(settings, memory, estimated, recall=finding.recall, lower=finding.lower, seconds=seconds, latency=wait)
        point = replace(point, verdict=self._verdict(point))
        self.points.append(point)
        _log.info(
            "measured", index=point.factory, knob=point.knob, recall=round(finding.recall, 4), us=round(seconds * 1e6, 1), is_=point.verdict
        )
        self._keep(_Candidate(settings, searched, point))
        return point

    def _keep(self, candidate: _Candidate) -> None:
        point = candidate.point
        if point.verdict == "holds" and (point.seconds or 0.0) < self.bar:
            # What lost is let go of: each holds an index.
            self.best, self.fallback = candidate, None
        elif self.best is None and (self.fallback is None or (point.lower or 0.0) > (self.fallback.point.lower or 0.0)):
            self.fallback = candidate

    def _verdict(self, point: Point) -> str:
        if point.latency is not None and point.latency > self.wanted.max_latency:
            return "over max_latency"
        return "holds" if (point.lower or 0.0) >= self.wanted.target_recall else "below the target"

    def _fits(self, settings: IndexSettings, memory: float) -> bool:
        if self.wanted.max_memory and memory > self.wanted.max_memory:
            self._note(settings, memory, None, _TOO_LARGE)
            return False
        return True

    def _fits_lists(self, code: Code, lists: int) -> bool:
        return self._fits(self._with(code.factory(lists)), self._memory(code, lists))

    def _memory(self, code: Code, lists: int) -> float:
        count, dimension = self.vectors.shape
        return code.memory(count, dimension, lists)

    def _may_win(self, settings: IndexSettings, memory: float, estimated: float, *, sure: bool) -> bool:
        if estimated * (_SURE if sure else _UNSURE) < self.bar:
            return True
        self._note(settings, memory, estimated, f"not built: about {estimated * 1e6:.0f} us a user")
        return False

    def _note(self, settings: IndexSettings, memory: float, estimated: float | None, verdict: str) -> None:
        self.points.append(_point(settings, memory, estimated, verdict=verdict))

    def _with(self, factory: str, **changes: int) -> IndexSettings:
        return self.settings.model_copy(update={"factory": factory, **changes})

    def _search(self, index: AbstractIndex) -> UserSearch:
        return self.make_search(index, self.vectors, self.blocked)


def first_that_holds(holds: Callable[[int], bool], low: int, high: int) -> int | None:
    """The least of low..high that holds, None where none does; whatever holds, everything above it does.

    The answer is expected near `low`: steps double until one holds, then the gap is halved.
    """
    step, failed, value = 1, low - 1, low
    while not holds(value):
        if value == high:
            return None
        failed, value, step = value, min(high, value + step), 2 * step
    while value - failed > 1:
        middle = (value + failed) // 2
        failed, value = (failed, middle) if holds(middle) else (middle, value)
    return value


def _knobs(start: int, most: int) -> list[int]:
    """Values from start to most, each by 2 % larger, or by one."""
    values = [start]
    while values[-1] < most:
        values.append(min(most, max(values[-1] + 1, int(values[-1] * 1.02))))
    return values


def _point(settings: IndexSettings, memory: float, estimated: float | None, **measured: Any) -> Point:
    found: dict[str, Any] = {"recall": None, "lower": None, "seconds": None, "latency": None, "verdict": "", **measured}
    return Point(
        factory=settings.factory,
        nprobe=settings.nprobe,
        ef_search=settings.ef_search,
        refine_factor=settings.refine_factor,
        estimated=estimated,
        memory=memory,
        **found,
    )
