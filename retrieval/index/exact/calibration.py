"""Which engine is the fastest on this machine, found by letting each search for a moment.

Every engine's candidates contain the result and the float64 score decides, so the choice changes the time and never a
byte of a result: two processes of one run may choose differently.
"""

import time
from functools import cache

import numpy as np

from retrieval.core.logging import get_logger
from retrieval.index.exact.cuda import CudaEngine
from retrieval.index.exact.engines import AbstractEngine
from retrieval.index.exact.kernels import BLOCK
from retrieval.index.exact.lowering.items import OrderedItems
from retrieval.index.exact.search import ExactSearch
from retrieval.index.exact.table import ENGINES
from retrieval.index.pools import Seen
from retrieval.index.settings import IndexSettings

_log = get_logger("index")
# Seconds that all engines search together, the numbers that a sample of items has, its users, and what they ask for.
_SECONDS, _NUMBERS, _USERS, _N = 1.0, 1 << 23, 256, 100
# An index of fewer numbers is searched before a calibration is done.
_WORTH = 1 << 23
_ROUNDS = 5


def chosen_engine(settings: IndexSettings, count: int, dimension: int) -> type[AbstractEngine]:
    """The engine that the settings name, or the fastest on their device for an index of count items.

    A small index takes the first of `ENGINES` that runs here.
    """
    if settings.engine != "auto" or settings.device == "gpu":
        return ENGINES[settings.engine if settings.engine != "auto" else CudaEngine.name]
    if count * dimension < _WORTH:
        return next(engine for engine in ENGINES.values() if engine.is_available())
    allowed = [name for name in calibrated(dimension) if settings.device == "auto" or name != CudaEngine.name]
    return ENGINES[allowed[0]]


@cache
def calibrated(dimension: int) -> dict[str, float]:
    """Microseconds that each engine takes for a user of one interest over eight million numbers, one thread, fastest first.

    The best of up to five rounds in which the engines take turns, so that a busy moment hurts all of them; measured once
    a process and dimension.
    """
    items = _sample(dimension)
    searches = {name: _search_with(engine, items) for name, engine in ENGINES.items() if engine.is_available()}
    interests = np.random.default_rng(1).standard_normal((_USERS, 1, dimension)).astype(np.float32).astype(np.float64)
    best, end = _round(searches, interests), time.perf_counter() + _SECONDS
    for _ in range(_ROUNDS):
        if time.perf_counter() > end:
            break
        best = {name: min(best[name], seconds) for name, seconds in _round(searches, interests).items()}
    ranked = {name: round(best[name] / _USERS * 1e6, 1) for name in sorted(best, key=best.__getitem__)}
    _log.info("exact engines calibrated", dimension=dimension, us_a_query=ranked, chosen=next(iter(ranked)))
    return ranked


def _sample(dimension: int) -> OrderedItems:
    count = max(_NUMBERS // dimension, BLOCK)
    return OrderedItems.of(np.random.default_rng(0).standard_normal((count, dimension), dtype=np.float32), 1)


def _search_with(engine: type[AbstractEngine], items: OrderedItems) -> ExactSearch:
    search = ExactSearch(engine(items, 1), np.zeros(len(items), dtype=bool), 1)
    # The first search compiles.
    search(np.ones((1, 1, items.vectors.shape[1])), np.ones((1, 1), dtype=bool), Seen.nothing(1), _N)
    return search


def _round(searches: dict[str, ExactSearch], interests: np.ndarray) -> dict[str, float]:
    return {name: _seconds(search, interests) for name, search in searches.items()}


def _seconds(search: ExactSearch, interests: np.ndarray) -> float:
    start = search.engine.clock()
    search(interests, np.ones((len(interests), 1), dtype=bool), Seen.nothing(len(interests)), _N)
    return search.engine.clock() - start
