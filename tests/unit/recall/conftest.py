"""Random pools with everything that list builders trip over, and the greedy loop that every paper writes down."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from retrieval.index.pools import Pools, Seen
from retrieval.recall.context import Labels, ListContext, SearchedInterests
from retrieval.recall.pools import Lists
from retrieval.recall.settings import RecallSettings

ITEMS = 120


@dataclass(frozen=True)
class Case:
    """Pools and what goes with them; a user of every kind: no interest, no history, one candidate, none at all."""

    pools: Pools
    context: ListContext

    def size(self, user: int) -> int:
        return int((self.pools.rows[user] >= 0).sum())

    def scores(self, user: int) -> np.ndarray:
        return self.pools.scores[user, : self.size(user)].astype(np.float64)

    def rows(self, user: int) -> np.ndarray:
        return self.pools.rows[user, : self.size(user)]

    def labels(self, row: int) -> list[int]:
        labels = self.context.labels
        return labels.codes[labels.offsets[row] : labels.offsets[row + 1]].tolist()

    def history(self, user: int) -> list[int]:
        histories = self.context.histories
        return histories.items[histories.offsets[user] : histories.offsets[user + 1]].tolist()

    def price(self, user: int, settings: RecallSettings) -> float:
        """Lambda, or lambda deviations of the pool's finite scores."""
        finite = self.scores(user)[np.isfinite(self.scores(user))]
        return settings.lambda_ * (finite.std() if settings.scale_free and finite.size and finite.std() > 0 else 1.0)


def csr(random: np.random.Generator, lengths: np.ndarray, draw: Callable[[int], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    parts = [draw(int(length)) for length in lengths]
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), np.concatenate([*parts, np.empty(0)]).astype(np.int32)


def random_vectors(random: np.random.Generator, dimension: int) -> np.ndarray:
    """Every tenth item is a copy of another one, up to its length; every seventeenth is a zero vector."""
    vectors = random.standard_normal((ITEMS, dimension)).astype(np.float32)
    vectors[::10] = 2 * vectors[5::10]
    vectors[::17] = 0.0
    return vectors


def random_pools(
    random: np.random.Generator, vectors: np.ndarray, interests: SearchedInterests, size: int, steps: int, closed: bool
) -> Pools:
    """Candidates by (-score, row), scores the largest product, in multiples of 1 / steps where steps > 0; some are -inf."""
    users = len(interests.valid)
    pools = Pools.empty(users, size)
    sizes = random.choice([0, 1, 2, size // 2, size, size, size, size], users)
    for user, filled in enumerate(sizes):
        rows = random.permutation(ITEMS)[:filled]
        products = np.where(interests.valid[user], vectors[rows] @ interests.vectors[user].T, -np.inf)
        known = interests.valid[user].any()
        scores = products.max(axis=1) if known else np.zeros(filled)
        scores = np.round(scores * steps) / steps if steps else scores
        scores[(random.random(filled) < 0.1) & closed] = -np.inf
        order = np.lexsort((rows, -scores)) if known else np.arange(filled)
        pools.rows[user, :filled], pools.scores[user, :filled] = rows[order], scores[order]
        pools.interest[user, :filled] = products.argmax(axis=1)[order] if known else -1
    return pools


def make_case(
    seed: int, *, users: int = 60, size: int = 40, dimension: int = 12, interests: int = 3, steps: int = 0, closed: bool = False
) -> Case:
    random = np.random.default_rng(seed)
    vectors = random_vectors(random, dimension)
    searched = random.standard_normal((users, interests, dimension)).astype(np.float32)
    own = SearchedInterests(searched, random.random((users, interests)) < 0.8)
    counts = random.choice([0, 1, 1, 2, 3], ITEMS)
    offsets, codes = csr(random, counts, lambda length: random.choice(7, length, replace=False))
    primary = np.where(counts > 0, codes[np.minimum(offsets[:-1], len(codes) - 1)], -1).astype(np.int32)
    lengths = random.choice([0, 1, 5, 30], users)
    past = Seen(*csr(random, lengths, lambda length: random.integers(0, ITEMS, length)))
    context = ListContext(primary, Labels(offsets, codes, 7), vectors, past, own)
    return Case(random_pools(random, vectors, own, size, steps, closed), context)


def naive_greedy(scores: np.ndarray, n: int, value: Callable[[int, list[int]], float]) -> list[int]:
    """Places of a pool: the best of what is left, the first of equals, until there are n; -inf comes last."""
    chosen: list[int] = []
    left = list(range(len(scores)))
    while left and len(chosen) < n:
        values = [value(place, chosen) if np.isfinite(scores[place]) else -np.inf for place in left]
        chosen.append(left.pop(int(np.argmax(values))))
    return chosen


def places_of(case: Case, lists: Lists, user: int) -> list[int]:
    """Where the items of a list stand in the pool; scores, interests and fillers are checked on the way."""
    rows = lists.rows[user][lists.rows[user] >= 0]
    places = [case.pools.rows[user].tolist().index(row) for row in rows]
    assert lists.scores[user, : len(rows)].tolist() == case.pools.scores[user, places].tolist()
    assert lists.interest[user, : len(rows)].tolist() == case.pools.interest[user, places].tolist()
    assert (lists.rows[user, len(rows) :] == -1).all()
    assert (lists.scores[user, len(rows) :] == -np.inf).all()
    assert (lists.interest[user, len(rows) :] == -1).all()
    return places


@dataclass(frozen=True)
class Loops:
    """The helpers of this folder, as pytest imports no test file by name."""

    case: Callable[..., Case] = make_case
    greedy: Callable[..., list[int]] = naive_greedy
    places: Callable[..., list[int]] = places_of


@pytest.fixture(scope="session")
def loops() -> Loops:
    return Loops()
