"""Counted neighbours against plain loops, whatever the blocks and threads; their pools against a dictionary of scores."""

import itertools
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from retrieval.core.errors import IntegrityError
from retrieval.index.neighbours.count import CountedLog, co_occurrences, transitions
from retrieval.index.neighbours.search import NeighbourSearch
from retrieval.index.neighbours.table import FILES, Neighbours
from retrieval.index.pools import Seen

ITEMS, USERS, KEPT = 30, 40, 6


def log_of(block_events: int = 1 << 20, threads: int = 1, kept: int = KEPT) -> CountedLog:
    """Users of no, one and many events, of which the last may not be counted."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 25, USERS)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = np.minimum(rng.geometric(0.12, offsets[-1]) - 1, ITEMS - 3).astype(np.int32)
    return CountedLog(offsets[:-1], items, np.maximum(lengths - 2, 0), ITEMS, kept, threads, block_events)


def visible(log: CountedLog) -> list[list[int]]:
    return [log.items[start : start + end].tolist() for start, end in zip(log.offsets, log.ends, strict=True)]


def heaviest(weights: dict[int, dict[int, float]], kept: int) -> dict[int, list[tuple[int, float]]]:
    """The first of each row by (-weight, row); weights as float32, so that ties are those of the table."""
    rounded = {i: [(j, float(np.float32(w))) for j, w in row.items()] for i, row in weights.items()}
    return {i: sorted(row, key=lambda pair: (-pair[1], pair[0]))[:kept] for i, row in rounded.items()}


def naive_transitions(log: CountedLog) -> dict[int, list[tuple[int, float]]]:
    counts: dict[int, Counter[int]] = defaultdict(Counter)
    events = Counter(item for history in visible(log) for item in history)
    total = sum(events.values())
    for history in visible(log):
        for one, other in itertools.pairwise(history):
            counts[one][other] += 1
    return heaviest(
        {i: {j: (count + events[j] / total) / (sum(row.values()) + 1) for j, count in row.items()} for i, row in counts.items()},
        log.neighbours,
    )


def naive_cosines(log: CountedLog, shrinkage: float) -> dict[int, list[tuple[int, float]]]:
    users = {item: {u for u, history in enumerate(visible(log)) if item in history} for item in range(ITEMS)}
    weights = {
        i: {
            j: len(users[i] & users[j]) / (np.sqrt(len(users[i]) * len(users[j])) + shrinkage)
            for j in range(ITEMS)
            if j != i and users[i] & users[j]
        }
        for i in range(ITEMS)
    }
    return heaviest(weights, log.neighbours)


def rows_of(table: Neighbours) -> dict[int, list[tuple[int, float]]]:
    bounds = zip(table.offsets, table.offsets[1:], strict=False)
    return {
        i: list(zip(table.rows[low:high].tolist(), table.weights[low:high].tolist(), strict=True))
        for i, (low, high) in enumerate(bounds)
        if high > low
    }


@pytest.mark.parametrize(("block_events", "threads"), [(1 << 20, 1), (1, 1), (37, 3)])
def test_transitions_are_those_of_a_loop(block_events: int, threads: int) -> None:
    log = log_of(block_events, threads)
    expected = naive_transitions(log)
    assert rows_of(transitions(log)) == expected
    assert max(len(row) for row in expected.values()) == KEPT


@pytest.mark.parametrize(("block_events", "threads"), [(1 << 20, 1), (1, 1), (37, 3)])
@pytest.mark.parametrize("shrinkage", [0.0, 10.0])
def test_cosines_are_those_of_a_loop(block_events: int, threads: int, shrinkage: float) -> None:
    log = log_of(block_events, threads)
    expected = naive_cosines(log, shrinkage)
    assert rows_of(co_occurrences(log, shrinkage)) == {i: row for i, row in expected.items() if row}


def test_what_may_not_be_seen_is_not_counted() -> None:
    log = CountedLog(np.array([0, 3]), np.array([0, 1, 2, 1, 0], np.int32), np.array([2, 1]), 3, 5)
    assert rows_of(transitions(log)) == {0: [(1, pytest.approx((1 + 2 / 3) / 2))]}
    assert rows_of(co_occurrences(log, 0.0)) == {0: [(1, pytest.approx(1 / np.sqrt(2)))], 1: [(0, pytest.approx(1 / np.sqrt(2)))]}


def test_a_log_without_events_has_no_neighbours() -> None:
    log = CountedLog(np.zeros(2, np.int64), np.empty(0, np.int32), np.zeros(2, np.int64), 4, 5)
    assert rows_of(transitions(log)) == {} == rows_of(co_occurrences(log, 1.0))


@pytest.mark.parametrize(("recent", "threads"), [(1, 1), (5, 4)])
def test_pools_add_the_weights_of_distinct_recent_items(recent: int, threads: int) -> None:
    log, rng = log_of(kept=ITEMS), np.random.default_rng(1)
    table, blocked = co_occurrences(log, 2.0), rng.random(ITEMS) < 0.2
    seen = Seen(np.arange(USERS + 1), rng.integers(0, ITEMS, USERS).astype(np.int32))
    offsets = np.append(log.offsets, len(log.items))
    pools = NeighbourSearch(table, recent, 8, blocked=blocked, threads=threads)(Seen(offsets, log.items), seen)
    rows, weights = rows_of(table), []
    for user in range(USERS):
        scores: dict[int, float] = defaultdict(float)
        for item in dict.fromkeys(log.items[offsets[user] : offsets[user + 1]][-recent:][::-1].tolist()):
            for j, weight in rows.get(item, []):
                scores[j] += weight
        open_ = {j: float(np.float32(s)) for j, s in scores.items() if not blocked[j] and j != seen.items[user]}
        expected = sorted(open_.items(), key=lambda pair: (-pair[1], pair[0]))[:8]
        assert [pair for pair in zip(pools.rows[user].tolist(), pools.scores[user].tolist(), strict=True) if pair[0] >= 0] == expected
        assert (pools.interest[user] == np.where(pools.rows[user] >= 0, 0, -1)).all()
        weights.append(len(expected))
    assert {0, 8} <= set(weights)


def test_a_table_is_read_as_it_was_written_and_only_whole(tmp_path: Path) -> None:
    table = transitions(log_of())
    table.write(lambda name: tmp_path / name)
    assert rows_of(Neighbours.read(lambda name: tmp_path / name, ITEMS)) == rows_of(table)
    with pytest.raises(IntegrityError, match="expected of 31"):
        Neighbours.read(lambda name: tmp_path / name, ITEMS + 1)
    (tmp_path / FILES[1]).write_bytes(b"\x93NUMPY")
    with pytest.raises(IntegrityError, match="train again"):
        Neighbours.read(lambda name: tmp_path / name, ITEMS)
    with pytest.raises(IntegrityError, match="do not belong"):
        NeighbourSearch(table, 1, 5, blocked=np.zeros(3, bool))
