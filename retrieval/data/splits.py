"""Who trains, whose future is hidden, from when on.

A split is five positions a user inside the user's own sequence of n events: training may use events [0, train_end);
the validation targets are [valid_start, valid_end) and are predicted from [0, valid_start); test likewise.
start == end means no targets.

comirec (Cen et al., KDD 2020, section 4.1): users are divided 8:1:1 by seed; training users train on everything,
    held-out users show floor(.8 n) events and are asked for the rest in one cut. Differs from the reference code
    in how the seed orders the users (a hash in place of Python's shuffle), so the groups are others.
leave-last-out: the last event is the test target, the one before it the validation target, the rest trains; users
    with fewer than three events only train.
global-time: everything before the validation cut trains, [validation cut, test cut) is validated, the rest tested.
    `target` first, last or random keeps one target a user and window; what lies before the target in the user's
    sequence is visible, events of the same window included. Which one is random is a hash of seed and user row.
    An item is known when it has a training event; unless cold items are allowed, truth.parquet leaves out targets
    on unknown items (a user whose one target is unknown then has none in that window).
rolling-days (rolling origin, Tashman 2000): test windows of `test_seconds`, one after the other, counted back from the
    last event. Each is a fold: `global-time` with the cut where its window begins and the log at an end where it ends. A
    fold trains on everything before its validation window, which lies right before the test window, and its test users
    show everything before the test window. Windows never overlap, and a newer fold trains on all that an older one did.
"""

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrieval.core.errors import DataContractError, UsageError
from retrieval.core.seeds import derive_seed
from retrieval.data.sequences import SequenceDataset
from retrieval.data.settings import SplitSettings

Part = Literal["valid", "test"]
PARTS: tuple[Part, ...] = ("valid", "test")
Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Positions inside every user's own sequence, int64 [U] each."""

    train_end: Positions
    valid_start: Positions
    valid_end: Positions
    test_start: Positions
    test_end: Positions

    @classmethod
    def load(cls, path: Path) -> "Split":
        """Read a split.parquet."""
        frame = pl.read_parquet(path)
        return cls(*(frame[field.name].to_numpy() for field in fields(cls)))

    def frame(self) -> pl.DataFrame:
        """One row a user row."""
        return pl.DataFrame({field.name: getattr(self, field.name) for field in fields(self)}, schema_overrides=None)

    def history_end(self, part: Part) -> Positions:
        """One past the last visible event of every user, int64 [U]."""
        return self.valid_start if part == "valid" else self.test_start

    def targets(self, part: Part) -> tuple[Positions, Positions]:
        """Start and end of every user's targets, int64 [U] each."""
        return (self.valid_start, self.valid_end) if part == "valid" else (self.test_start, self.test_end)

    def users(self, part: Part) -> Positions:
        """The rows of the users with targets, int64, ascending."""
        start, end = self.targets(part)
        return np.flatnonzero(end > start)


def make_split(settings: SplitSettings, sequences: SequenceDataset) -> Split:
    """Apply the protocol of the settings.

    Raises:
        UsageError: the cuts are not in order.
        DataContractError: a window lies outside the log, so nothing would train or be tested.
    """
    return _PROTOCOLS[settings.protocol](settings, sequences)


def comirec(settings: SplitSettings, sequences: SequenceDataset) -> Split:
    """Users 8:1:1 by seed; of a held-out user the first floor(.8 n) events are visible."""
    lengths = sequences.lengths
    rank = np.empty(len(lengths), dtype=np.int64)
    rank[np.argsort(_hashed(len(lengths), settings.seed), kind="stable")] = np.arange(len(lengths))
    train_users, valid_users = len(lengths) * 8 // 10, len(lengths) * 9 // 10
    train, test = rank < train_users, rank >= valid_users
    valid, start = ~train & ~test, lengths * 8 // 10
    return Split(
        train_end=np.where(train, lengths, 0),
        valid_start=np.where(valid, start, 0),
        valid_end=np.where(valid, lengths, 0),
        test_start=np.where(test, start, 0),
        test_end=np.where(test, lengths, 0),
    )


def leave_last_out(settings: SplitSettings, sequences: SequenceDataset) -> Split:  # noqa: ARG001 (one signature)
    """The last event tests, the one before validates; users with fewer than three events only train."""
    lengths = sequences.lengths
    held = np.where(lengths >= 3, 1, 0)
    return Split(
        train_end=lengths - 2 * held,
        valid_start=lengths - 2 * held,
        valid_end=lengths - held,
        test_start=lengths - held,
        test_end=lengths,
    )


@dataclass(frozen=True)
class TimeCuts:
    """Three moments in the unit of the log's times: a window holds the events from its first moment until before the next."""

    valid_from: int
    test_from: int
    test_until: int

    def window(self, part: Part) -> tuple[int, int]:
        """Where the targets of a part lie."""
        return (self.valid_from, self.test_from) if part == "valid" else (self.test_from, self.test_until)


def in_time(settings: SplitSettings, sequences: SequenceDataset) -> Split:
    """Cuts in time, the same for everybody."""
    cuts = time_cuts(settings, sequences)
    ends = [_events_before(sequences, moment) for moment in (cuts.valid_from, cuts.test_from, cuts.test_until)]
    return Split(ends[0], *_targets_between(settings, "valid", *ends[:2]), *_targets_between(settings, "test", *ends[1:]))


def time_cuts(settings: SplitSettings, sequences: SequenceDataset) -> TimeCuts:
    """The moments that `global-time` or a fold of `rolling-days` cuts at.

    Raises:
        UsageError: they are not in order. DataContractError: they lie outside of the log.
    """
    first, last = int(sequences.times.min()), int(sequences.times.max())
    cuts = _moments(settings, last)
    if cuts.valid_from >= cuts.test_from:
        what = f"validation starts at {cuts.valid_from}, test at {cuts.test_from}"
        raise UsageError(what, where="split", expected="validation before test")
    if cuts.valid_from <= first or cuts.test_from > last:
        raise DataContractError(
            f"cuts at {cuts.valid_from} and {cuts.test_from} leave nothing to train on or to test",
            where="split",
            expected=f"cuts inside the log, {first} to {last}",
            remedy="shorten split.valid_seconds and split.test_seconds, run fewer folds, or set valid_from and test_from",
        )
    return cuts


def _moments(settings: SplitSettings, last: int) -> TimeCuts:
    if settings.valid_from is not None and settings.test_from is not None:
        return TimeCuts(_as_time(settings.valid_from), _as_time(settings.test_from), last + 1)
    later = settings.fold - 1 if settings.protocol == "rolling-days" else 0
    until = last + 1 - later * round(settings.test_seconds)
    test_from = until - round(settings.test_seconds)
    return TimeCuts(test_from - round(settings.valid_seconds), test_from, until)


def ground_truth(
    split: Split, sequences: SequenceDataset, part: Part, known: NDArray[np.bool_] | None = None
) -> tuple[Positions, Positions]:
    """The targets of a part as (user rows, item rows), int64 [M] each.

    In order of user and time; an item counts once a user. `known` bool [N] drops the items that are False.
    """
    start, end = split.targets(part)
    positions, users = ranges(sequences.offsets[:-1] + start, end - start)
    items = sequences.items[positions].astype(np.int64)
    keep = first_occurrences(users, items, len(known) if known is not None else int(items.max(initial=-1)) + 1)
    if known is not None:
        keep &= known[items]
    return users[keep], items[keep]


def training_counts(split: Split, sequences: SequenceDataset, n_items: int) -> Positions:
    """Training events of every item, int64 [N]."""
    counts = np.zeros(n_items, dtype=np.int64)
    for positions in _training_positions(split, sequences):
        counts += np.bincount(sequences.items[positions], minlength=n_items)
    return counts


def first_training_times(split: Split, sequences: SequenceDataset, n_items: int) -> Positions:
    """The time of every item's first training event, int64 [N]; the largest int64 for an item without one."""
    times = np.full(n_items, np.iinfo(np.int64).max)
    for positions in _training_positions(split, sequences):
        np.minimum.at(times, sequences.items[positions], sequences.times[positions])
    return times


def _training_positions(split: Split, sequences: SequenceDataset) -> Iterator[Positions]:
    """Where the training events are, those of some users at a time."""
    for first in range(0, sequences.n_users, 1 << 20):
        chunk = slice(first, first + (1 << 20))
        yield ranges(sequences.offsets[:-1][chunk], split.train_end[chunk])[0]


def ranges(start: Positions, length: Positions) -> tuple[Positions, Positions]:
    """All positions of the ranges [start, start + length) and the number of the range each belongs to."""
    owner = np.repeat(np.arange(len(length)), length)
    first = np.cumsum(length) - length
    return np.arange(len(owner)) - (first - start)[owner], owner


def first_occurrences(users: Positions, items: Positions, n_items: int) -> NDArray[np.bool_]:
    """Where a (user, item) pair is met for the first time, bool [M]."""
    _, first = np.unique(users * max(n_items, 1) + items, return_index=True)
    keep = np.zeros(len(users), dtype=np.bool_)
    keep[first] = True
    return keep


def _targets_between(settings: SplitSettings, part: Part, start: Positions, end: Positions) -> tuple[Positions, Positions]:
    """The targets among the events [start, end) of every user."""
    if settings.target == "all":
        return start, end
    if settings.target == "first":
        return start, np.minimum(start + 1, end)
    chosen = end - 1 if settings.target == "last" else start + _drawn(end - start, derive_seed(settings.seed, part))
    chosen = np.maximum(chosen, start)
    return chosen, np.minimum(chosen + 1, end)


def _drawn(counts: Positions, seed: int) -> Positions:
    """A number below each count, 0 where it is 0; uniform but for less than count / 2^64."""
    drawn = _hashed(len(counts), seed) % np.maximum(counts, 1).astype(np.uint64)
    return drawn.astype(np.int64)


def _events_before(sequences: SequenceDataset, cut: int) -> Positions:
    # Sums of a mask over segments: exact, and one pass over the memory-mapped times.
    before = np.concatenate([[0], np.cumsum(sequences.times < cut)])
    counts: Positions = before[sequences.offsets[1:]] - before[sequences.offsets[:-1]]
    return counts


def _as_time(value: dt.datetime | int) -> int:
    if isinstance(value, int):
        return value
    aware = value if value.tzinfo else value.replace(tzinfo=dt.UTC)
    return int(np.ceil(aware.timestamp()))


def _hashed(n: int, seed: int) -> NDArray[np.uint64]:
    """splitmix64 of (seed, row): an order of users that no library version changes."""
    with np.errstate(over="ignore"):
        value = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed % 2**64)
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


_PROTOCOLS: Mapping[str, Callable[[SplitSettings, SequenceDataset], Split]] = {
    "comirec": comirec,
    "leave-last-out": leave_last_out,
    "global-time": in_time,
    "rolling-days": in_time,
}
