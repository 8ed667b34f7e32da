"""Pools of any shape against a dictionary and a sort: seen and blocked items, ties, invalid interests, any batch and threads."""

from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from retrieval.index.pools import Pools, Seen
from retrieval.index.settings import IndexSettings
from retrieval.index.table import build_index
from retrieval.recall.search import InterestSearch


@dataclass(frozen=True)
class Batch:
    """Users with their interests and histories."""

    interests: np.ndarray
    valid: np.ndarray
    seen: Seen

    def part(self, users: slice) -> "Batch":
        stop = min(users.stop, len(self.valid))
        offsets = self.seen.offsets[users.start : stop + 1]
        seen = Seen(offsets - offsets[0], self.seen.items[offsets[0] : offsets[-1]])
        return Batch(self.interests[users], self.valid[users], seen)


@dataclass(frozen=True)
class Case:
    """A catalog, a batch of users and a length. Coordinates are whole numbers: scores are exact and full of ties."""

    vectors: np.ndarray
    batch: Batch
    blocked: np.ndarray
    n: int
    over_fetch: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    items, dimension = draw(st.integers(1, 90)), draw(st.integers(1, 11))
    users, interests = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    small = st.integers(-3, 3).map(float)
    histories = draw(st.lists(st.lists(st.integers(0, items - 1), max_size=2 * items), min_size=users, max_size=users))
    offsets = np.cumsum([0, *map(len, histories)], dtype=np.int64)
    batch = Batch(
        draw(hnp.arrays(np.float32, (users, interests, dimension), elements=small)),
        draw(hnp.arrays(bool, (users, interests))),
        Seen(offsets, np.array([item for history in histories for item in history], dtype=np.int32)),
    )
    vectors = draw(hnp.arrays(np.float32, (items, dimension), elements=small))
    blocked = draw(hnp.arrays(bool, items)) & draw(st.booleans())
    return Case(vectors, batch, blocked, draw(st.integers(1, 40)), draw(st.integers(0, 5)))


def naive(case: Case, user: int) -> list[tuple[int, float, int]]:
    """(row, score, interest) by a dictionary, item by item."""
    seen = set(case.batch.seen.items[case.batch.seen.offsets[user] : case.batch.seen.offsets[user + 1]].tolist())
    best: dict[int, tuple[float, int]] = {}
    for interest in np.flatnonzero(case.batch.valid[user]):
        for row in range(len(case.vectors)):
            score = float(case.vectors[row].astype(np.float64) @ case.batch.interests[user, interest].astype(np.float64))
            if row not in seen and not case.blocked[row] and (row not in best or score > best[row][0]):
                best[row] = (score, int(interest))
    order = sorted(best, key=lambda row: (-best[row][0], row))[: case.n]
    return [(row, *best[row]) for row in order]


def as_triples(pools: Pools, user: int) -> list[tuple[int, float, int]]:
    filled = pools.rows[user] >= 0
    assert (np.diff(filled.astype(int)) <= 0).all()
    columns = pools.rows[user, filled], pools.scores[user, filled], pools.interest[user, filled]
    return list(zip(*(column.tolist() for column in columns), strict=True))


def search_of(case: Case, factory: str, threads: int = 1) -> InterestSearch:
    index = build_index(case.vectors, IndexSettings(factory=factory, device="cpu", over_fetch=case.over_fetch, threads=threads))
    return InterestSearch(index, case.vectors, case.n, blocked=case.blocked, threads=threads)


@given(cases(), st.sampled_from(["exact", "Flat"]))
def test_pools_equal_a_dictionary_and_a_sort(case: Case, factory: str) -> None:
    pools = search_of(case, factory)(case.batch.interests, case.batch.valid, case.batch.seen)
    for user in range(len(case.batch.valid)):
        assert as_triples(pools, user) == naive(case, user)


@given(cases(), st.integers(1, 6), st.integers(1, 3))
def test_pools_do_not_depend_on_batch_or_threads(case: Case, size: int, threads: int) -> None:
    whole = search_of(case, "exact")(case.batch.interests, case.batch.valid, case.batch.seen)
    search = search_of(case, "exact", threads)
    batches = [case.batch.part(slice(start, start + size)) for start in range(0, len(case.batch.valid), size)]
    parts = [search(batch.interests, batch.valid, batch.seen) for batch in batches]
    for name in ("rows", "scores", "interest"):
        assert np.concatenate([getattr(part, name) for part in parts]).tobytes() == getattr(whole, name).tobytes()


@given(cases())
def test_an_approximate_index_still_gives_full_lists_without_seen_or_blocked_items(case: Case) -> None:
    lists = max(1, len(case.vectors) // 12)
    index = build_index(case.vectors, IndexSettings(factory=f"IVF{lists},Flat", nprobe=1, device="cpu", threads=1))
    batch = case.batch
    pools = InterestSearch(index, case.vectors, case.n, blocked=case.blocked)(batch.interests, batch.valid, batch.seen)
    for user in range(len(batch.valid)):
        rows = [row for row, _, _ in as_triples(pools, user)]
        seen = batch.seen.items[batch.seen.offsets[user] : batch.seen.offsets[user + 1]]
        assert len(set(rows)) == len(rows) == len(naive(case, user))
        assert not set(rows) & set(seen.tolist())
        assert not case.blocked[rows].any()


@given(cases())
def test_what_is_invalid_may_be_anything(case: Case) -> None:
    batch, search = case.batch, search_of(case, "exact")
    poisoned = np.where(batch.valid[:, :, None], batch.interests, np.float32("nan"))
    clean, found = (search(interests, batch.valid, batch.seen) for interests in (batch.interests, poisoned))
    assert clean.rows.tobytes() == found.rows.tobytes()
    assert clean.scores.tobytes() == found.scores.tobytes()
