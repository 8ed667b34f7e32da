"""What the leak checker looks at: who is learned from, who is seen with what, and who is asked for what."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrieval.data.splits import Positions, TimeCuts, ranges

Counts = NDArray[np.int64]
_CHUNK_EVENTS = 1 << 22


class Rows(NamedTuple):
    """Some events: user rows, item rows, times, and each event's number within its user's segment; int64 [M] each."""

    users: Positions
    items: Positions
    times: Positions
    places: Positions

    def some(self, chosen: NDArray[np.bool_] | Positions) -> "Rows":
        """Some of them."""
        return Rows(*(column[chosen] for column in self))

    def pairs(self, n_items: int) -> Positions:
        """User and item as one number."""
        return self.users * n_items + self.items


@dataclass(frozen=True)
class Segments:
    """Consecutive events of every user: positions [start, stop) of flat arrays, oldest first.

    items: integers [E], item rows. times: int64 [E]; weights: float [E] or None. start, stop: int64 [U].
    """

    items: NDArray[np.integer]
    times: NDArray[np.int64]
    start: Positions
    stop: Positions
    weights: NDArray[np.floating] | None = None

    @property
    def lengths(self) -> Positions:
        """Events of every user, int64 [U]."""
        lengths: Positions = np.maximum(self.stop - self.start, 0)
        return lengths

    def of(self, users: slice | Positions) -> Rows:
        """The events of some users."""
        first = self.start[users]
        positions, owner = ranges(first, self.lengths[users])
        rows = np.arange(users.start, users.stop) if isinstance(users, slice) else users
        return Rows(rows[owner], self.items[positions].astype(np.int64), np.asarray(self.times[positions]), positions - first[owner])

    def positions(self, users: slice) -> Positions:
        """Where the events of some users lie."""
        return ranges(self.start[users], self.lengths[users])[0]


@dataclass(frozen=True)
class Part:
    """What users are seen with and asked for, in one part of a split."""

    history: Segments
    targets: Segments
    truth: pl.DataFrame | None = None
    """Rows `user` and `item` (Int64) that lists are measured against; None where the targets themselves are."""


@dataclass(frozen=True)
class Popularity:
    """Counts [N] that something was made from, and what they may be at most; None: the training events."""

    counts: NDArray[np.generic]
    at_most: NDArray[np.generic] | None = None


@dataclass(frozen=True)
class Evidence:
    """Everything that is checked. Rows of users and items mean the same throughout.

    Args:
        users, items: the log's own ids, in row order.
        log: all events there are, hidden ones included.
        training: what models learn from.
        parts: by name, "valid" and "test" or one of them.
        cuts: the moments of a split in time; None where users and not times are parted.
        in_seconds: times are moments since 1970, in seconds or a smaller unit; the steps of an order, or nothing, otherwise.
        users_apart: held-out users may not be trained on.
        sees_window: what a user did inside the window before the target may be seen.
        known_only: targets on items without a training event are left out.
        fresh_items: items that first appear after the cut may be given.
        timed: whether targets have times; of pairs without a moment only the items are compared.
        popularity: by name, counts that came from elsewhere than from `training`.
        fields: columns field_<name> [N] of the items.
        candidates: parquet files of lists, user_id and item_id, made for the test part.
    """

    users: pl.Series
    items: pl.Series
    log: Segments
    training: Segments
    parts: Mapping[str, Part]
    cuts: TimeCuts | None = None
    in_seconds: bool = True
    users_apart: bool = False
    sees_window: bool = False
    known_only: bool = False
    fresh_items: bool = False
    timed: bool = True
    popularity: Mapping[str, Popularity] = field(default_factory=dict)
    fields: pl.DataFrame = field(default_factory=pl.DataFrame)
    candidates: Sequence[Path] = ()

    @property
    def n_items(self) -> int:
        return len(self.items)

    @cached_property
    def trained(self) -> "ItemFigures":
        """Of the training events."""
        return item_figures(self.training, self.n_items)

    @cached_property
    def overall(self) -> "ItemFigures":
        """Of all events, hidden ones included."""
        return item_figures(self.log, self.n_items)

    def chunks(self) -> Iterator[slice]:
        """Users side by side, so many that their events fit into memory; one user is the least."""
        total = self.training.lengths + sum(part.history.lengths + part.targets.lengths for part in self.parts.values())
        yield from user_chunks(total)

    def example(self, user: int, item: int, time: int | None = None) -> str:
        """An event in the ids of the log."""
        at = "" if time is None or not self.timed else f" at {time}"
        return f"user {self.users[user]!r}, item {self.items[item]!r}{at}"


@dataclass(frozen=True)
class ItemFigures:
    """Of some events, by item [N]: how many, the first and the last time, and the sum of the weights (None without weights)."""

    counts: Counts
    first: Counts
    last: Counts
    weights: NDArray[np.float64] | None


def item_figures(events: Segments, n_items: int, *, since: int | None = None) -> ItemFigures:
    """One pass over the events, or those not before `since`, a chunk of users at a time.

    An item without events has the largest first and the least last time.
    """
    limits = np.iinfo(np.int64)
    counts, first, last = np.zeros(n_items, np.int64), np.full(n_items, limits.max), np.full(n_items, limits.min)
    weights = None if events.weights is None else np.zeros(n_items)
    for users in user_chunks(events.lengths):
        positions = events.positions(users)
        positions = positions if since is None else positions[events.times[positions] >= since]
        items, times = events.items[positions], np.asarray(events.times[positions])
        counts += np.bincount(items, minlength=n_items)
        np.minimum.at(first, items, times)
        np.maximum.at(last, items, times)
        if weights is not None and events.weights is not None:
            weights += np.bincount(items, events.weights[positions], minlength=n_items)
    return ItemFigures(counts, first, last, weights)


def user_chunks(events: Counts) -> Iterator[slice]:
    """Slices of users with some millions of events together."""
    ends = np.cumsum(events)
    first = 0
    while first < len(events):
        done = int(ends[first - 1]) if first else 0
        stop = max(first + 1, int(np.searchsorted(ends, done + _CHUNK_EVENTS, side="right")))
        yield slice(first, min(stop, len(events)))
        first = stop
