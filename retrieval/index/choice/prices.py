"""What a search should cost before its index is built: a roofline from small indexes on this machine.

A user's search in inverted lists costs a fixed part (merging, refining), a part a code that is read, and the product with the
centroids. The first two are measured on two small indexes of each code through the very search that makes lists; a
code costs no less than reading its bytes from memory.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from retrieval.core.seeds import derive_seed
from retrieval.index.choice.clock import Clock
from retrieval.index.choice.front import Point
from retrieval.index.choice.judge import Judge, MakeSearch
from retrieval.index.settings import IndexSettings
from retrieval.index.table import build_index

_SMALL, _LARGE = 4096, 16_384
_USERS = 64
_READ = 1 << 24


@dataclass(frozen=True)
class Code:
    """A way to keep vectors in inverted lists: the factory's word for it, and bytes an item."""

    name: str
    item_bytes: float

    def factory(self, lists: int) -> str:
        """The factory string with so many lists."""
        return f"IVF{lists},{self.name}"

    def memory(self, count: int, dimension: int, lists: int) -> float:
        """Bytes of the index."""
        return count * (self.item_bytes + 8) + lists * dimension * 4


def codes_for(dimension: int) -> list[Code]:
    """The codes that are tried; fast-scan codes need an even dimension."""
    full = 4.0 * dimension
    codes = [Code("Flat", full), Code("SQ8", float(dimension)), Code("RaBitQ,RFlat", full + dimension / 8 + 8)]
    return codes if dimension % 2 else [*codes, Code(f"PQ{dimension // 2}x4fs,RFlat", full + dimension / 4)]


class Prices:
    """Core-seconds a user, by code, lists and lists to visit.

    Args:
        vectors: of all items; small indexes are built of the first rows of a seeded order.
        judge: its users are searched for.
        make_search: what makes the lists.
        settings: how indexes are searched.
        clock: of this machine.
    """

    def __init__(
        self, vectors: Float32[np.ndarray, "n d"], judge: Judge, make_search: MakeSearch, settings: IndexSettings, clock: Clock
    ) -> None:
        self._judge, self._make_search, self._settings, self._clock = judge, make_search, settings, clock
        order = np.random.default_rng(derive_seed("index", "prices")).permutation(len(vectors))
        self._sample = np.ascontiguousarray(vectors[np.sort(order[:_LARGE])])
        self._heads = float(judge.valid.sum(axis=1).mean())
        stretch = np.ones(_READ, np.float32)
        self._byte = clock.seconds(lambda: stretch @ stretch) / stretch.nbytes
        self._fits: dict[str, tuple[float, float]] = {}
        self._measured_over_estimated: dict[str, float] = {}

    def roofline(self, code: Code, lists: int, scanned: float) -> float:
        """Core-seconds of a user who reads so many codes, corrected by what the code's other measurements came to."""
        fixed, a_code = self._fit(code)
        products = self._heads * lists * self._sample.shape[1] * self._clock.multiply_add
        return float(fixed + scanned * a_code + products) * self._measured_over_estimated.get(code.name, 1.0)

    def learn(self, code: Code, point: Point) -> None:
        """Correct the next estimates of a code by one that was measured."""
        if point.seconds and point.estimated:
            before = self._measured_over_estimated.get(code.name, 1.0)
            self._measured_over_estimated[code.name] = before * point.seconds / point.estimated

    def is_known(self, code: Code) -> bool:
        """Whether an index of the code was measured."""
        return code.name in self._measured_over_estimated

    def graph(self, factory: str) -> float:
        """What a small graph costs with the shortest queue: a large one costs no less."""
        return self._seconds(factory, len(self._sample), self._settings.model_copy(update={"ef_search": self._judge.n}))

    def _fit(self, code: Code) -> tuple[float, float]:
        if code.name not in self._fits:
            small, large = min(_SMALL, len(self._sample) // 2), len(self._sample)
            one, other = (self._seconds(code.factory(1), count, self._settings) for count in (small, large))
            a_code = max((other - one) / (self._heads * (large - small)), self._scanned_bytes(code) * self._byte)
            self._fits[code.name] = (max(0.0, one - self._heads * small * a_code), a_code)
        return self._fits[code.name]

    def _scanned_bytes(self, code: Code) -> float:
        # A refiner reads whole vectors of the few best only.
        refined = 4.0 * self._sample.shape[1] if code.name.endswith("RFlat") else 0.0
        return code.item_bytes - refined

    def _seconds(self, factory: str, count: int, settings: IndexSettings) -> float:
        vectors = self._sample[:count]
        chosen = settings.model_copy(update={"factory": factory, "nprobe": 1, "train_sample": 0})
        search = self._make_search(build_index(vectors, chosen), vectors)
        interests, valid = self._judge.interests[:_USERS], self._judge.valid[:_USERS]
        search(interests, valid)
        return self._clock.seconds(lambda: search(interests, valid)) / len(interests)
