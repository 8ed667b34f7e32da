"""From training events to tables of neighbours, in blocks of items: memory does not grow with the log.

Markov is what the last event alone predicts, and strong wherever the log has sessions. Item-kNN is the baseline that many
published models do not beat once it is tuned (Ferrari Dacrema et al., RecSys 2019, section 3.1).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, Integer

from retrieval.index.neighbours.kernels import count_items, gather_next, gather_users, weigh_co_occurrences, weigh_transitions
from retrieval.index.neighbours.table import Neighbours
from retrieval.index.threads import over_chunks

_EVENTS = 1 << 24
# Of a block's answer: 8 bytes each.
_CELLS = 1 << 24
Array = np.ndarray
Gathered = tuple[Array, Array, Array]


@dataclass(frozen=True)
class CountedLog:
    """The events that may be counted: of user u, items[offsets[u]:offsets[u] + ends[u]], oldest first.

    n_items: rows of the catalog. neighbours: kept of each item, at most. threads: 0 for all cores. block_events: events
    of the items looked at together, at most, unless one item has more; it bounds memory, and the log is read once a block.
    """

    offsets: Int64[np.ndarray, "u"]
    items: Integer[np.ndarray, "e"]
    ends: Int64[np.ndarray, "u"]
    n_items: int
    neighbours: int
    threads: int = 0
    block_events: int = _EVENTS

    @property
    def sequences(self) -> tuple[Array, Array, Array]:
        """As the kernels take it; a memory map becomes a plain view of the same pages."""
        return np.asarray(self.offsets), np.asarray(self.items), self.ends


def transitions(log: CountedLog) -> Neighbours:
    """First-order Markov: the weight of j in the row of i is (count(i then j) + share of j) / (events that follow i + 1).

    That is the probability of the next item, smoothed towards popularity by the weight of one event, so that equal
    counts stand in order of popularity. An item after itself counts as any other.
    """
    events, _ = _counts(log)
    shares = events / max(1, int(events.sum()))

    def weigh(_first: int, found: Gathered, out: tuple[Array, Array]) -> None:
        over_chunks(weigh_transitions, len(found[0]), log.threads, found, shares, out)

    return _in_blocks(log, events, gather_next, weigh)


def co_occurrences(log: CountedLog, shrinkage: float) -> Neighbours:
    """Item-kNN: the weight of j in the row of i is users(i and j) / (sqrt(users(i) users(j)) + shrinkage), j other than i."""
    _, users = _counts(log)

    def weigh(first: int, found: Gathered, out: tuple[Array, Array]) -> None:
        over_chunks(weigh_co_occurrences, len(found[0]), log.threads, found, log.sequences, (users, first, shrinkage), out)

    return _in_blocks(log, users, gather_users, weigh)


def _counts(log: CountedLog) -> tuple[Array, Array]:
    events, users = np.zeros((2, log.n_items), np.int64)
    count_items(log.sequences, events, users)
    return events, users


def _in_blocks(
    log: CountedLog, sizes: Array, gather: Callable[..., Array], weigh: Callable[[int, Gathered, tuple[Array, Array]], None]
) -> Neighbours:
    """Gather and weigh block by block; `sizes` int64[N] is the most that can be gathered of an item."""
    width = min(log.neighbours, log.n_items)
    parts: list[tuple[Array, Array, Array]] = []
    for first, stop in _blocks(log, sizes, width):
        starts = np.cumsum(sizes[first:stop]) - sizes[first:stop]
        gathered = np.empty(int(sizes[first:stop].sum()), np.int32)
        stops = gather(log.sequences, first, starts, gathered)
        rows, weights = np.full((stop - first, width), -1, np.int32), np.zeros((stop - first, width), np.float32)
        weigh(first, (starts, stops, gathered), (rows, weights))
        kept = rows >= 0
        parts.append((kept.sum(axis=1), rows[kept], weights[kept]))
    lengths, rows, weights = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Neighbours(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), rows, weights)


def _blocks(log: CountedLog, sizes: Array, width: int) -> Iterator[tuple[int, int]]:
    """Ranges of items with at most `block_events` events, and whose answers fit."""
    before, first, most = np.concatenate([[0], np.cumsum(sizes)]), 0, max(1, _CELLS // width)
    while first < log.n_items:
        stop = int(np.searchsorted(before, before[first] + log.block_events, side="right")) - 1
        stop = min(max(stop, first + 1), first + most, log.n_items)
        yield first, stop
        first = stop
