"""Reading the event log: checked, encoded, a batch at a time; 20 bytes an event stay in memory."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import DTypeLike, NDArray

from retrieval.core.errors import DataContractError, UsageError
from retrieval.core.progress import Progress, progress
from retrieval.data.columns import Source
from retrieval.data.contract import EventContract, RowCheck, row_check
from retrieval.data.files import batches, row_count
from retrieval.data.ids import IdEncoder, TextEncoder
from retrieval.data.quarantine import Quarantine
from retrieval.data.settings import FilterSettings
from retrieval.data.times import limit


@dataclass
class Interactions:
    """The valid events in input order, as codes of the encoders.

    `columns` holds user, item (int32), time (int64; microseconds or the order) and, where declared, order (int64),
    weight (float32), kind (int32), each [E].
    """

    columns: dict[str, NDArray[Any]]
    rows: int
    """Rows read."""
    passed_over: NDArray[np.int64]
    """Input rows that are no event here: quarantined, or of another kind; ascending."""
    other_kinds: int
    later: int
    """Events from `filters.before` on."""
    kinds: list[str]
    """The kind of code c at place c."""
    field_names: dict[str, list[str]]
    """The same of the fields that hold names."""

    def input_rows(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The input rows of events, given by their places in the columns."""
        skipped_before = self.passed_over - np.arange(len(self.passed_over))
        rows: NDArray[np.int64] = places + np.searchsorted(skipped_before, places, side="right")
        return rows


@dataclass
class LogReader:
    """Reads one log; `users` and `items` keep the ids."""

    source: Source
    contract: EventContract
    filters: FilterSettings
    users: IdEncoder
    items: IdEncoder
    quarantine: Quarantine
    known_items: int | None = None
    """The items with smaller codes are in the items table; events on others are quarantined. None: any item."""
    kinds: TextEncoder = field(default_factory=TextEncoder)
    names: dict[str, TextEncoder] = field(default_factory=lambda: defaultdict(TextEncoder))
    later: int = 0
    """Events from `filters.before` on, so far."""

    def read(self) -> Interactions:
        """Read every file.

        Raises:
            DataContractError: the log is empty, a file is damaged, or too many rows break the contract.
            UsageError: the log is to end at a moment and has none.
        """
        if self.filters.before is not None and self.contract.unit == "order":
            remedy = "leave it out; a night reads the whole log where time_unit = 'order'"
            raise UsageError("the log has an order and no times", where="data.filters.before", remedy=remedy)
        total = row_count(self.source.files)
        if total == 0:
            raise DataContractError("the log is empty", where=self.source.where, expected="at least one event")
        pieces: dict[str, list[NDArray[Any]]] = defaultdict(list)
        passed_over: list[NDArray[np.int64]] = []
        with progress("reading", total) as bar:
            for first, frame, check in self._checked_batches(bar):
                kept, columns = self._events(first, frame, check)
                passed_over.append(np.flatnonzero(~kept) + first)
                for name, values in columns.items():
                    pieces[name].append(values)
        skipped = np.concatenate(passed_over)
        return Interactions(
            columns={name: _joined(pieces[name], pieces[name][0].dtype) for name in pieces},
            rows=total,
            passed_over=skipped,
            other_kinds=len(skipped) - self.quarantine.count("interactions") - self.later,
            later=self.later,
            kinds=self.kinds.ids().to_list(),
            field_names={name: encoder.ids().to_list() for name, encoder in self.names.items()},
        )

    def _checked_batches(self, bar: Progress) -> Iterator[tuple[int, pl.DataFrame, RowCheck]]:
        first = 0
        # All of them first: a file of another type stops the run before hours of reading.
        checks = [row_check(self.contract, sorts, file.path) for file, sorts in zip(self.source.files, self.source.sorts, strict=True)]
        for file, check in zip(self.source.files, checks, strict=True):
            for frame in batches(file, self.source.columns):
                yield first, frame, check
                first += frame.height
                bar.advance(frame.height)

    def _events(self, first: int, frame: pl.DataFrame, check: RowCheck) -> tuple[NDArray[np.bool_], dict[str, NDArray[Any]]]:
        """Check and encode a batch: which rows are events, and their columns."""
        values = frame.select(**check.values, rule=check.rule)
        good = values["rule"].is_null().to_numpy(writable=True)
        names = pl.Series(check.names, dtype=pl.String)
        bad = np.flatnonzero(~good)
        self._isolate(first, frame, bad, names.gather(values["rule"].gather(bad)))
        if self.filters.before is not None:
            in_time = ~(good & (values["time"] >= limit(self.filters.before)).fill_null(value=False).to_numpy())
            self.later += int((~in_time).sum())
            good &= in_time
        if self.filters.kinds:
            good &= values["kind"].is_in(self.filters.kinds).fill_null(value=False).to_numpy()
        events = values if good.all() else values.filter(good)
        items = self.items.encode(events["item"])
        if self.known_items is not None and len(items) and items.max() >= self.known_items:
            unknown = items >= self.known_items
            places = np.flatnonzero(good)[unknown]
            self._isolate(first, frame, places, pl.Series(["unknown_item"]).new_from_index(0, len(places)))
            good[places] = False
            events, items = events.filter(~unknown), items[~unknown]
        return good, {name: self._column(name, events, items) for name in check.values}

    def _column(self, name: str, events: pl.DataFrame, items: NDArray[np.int32]) -> NDArray[Any]:
        if name == "item":
            return items
        if name == "user":
            return self.users.encode(events["user"])
        if name == "kind":
            return self.kinds.encode(events["kind"])
        if name.startswith("field_") and events[name].dtype == pl.String:
            return self.names[name.removeprefix("field_")].encode(events[name])
        values = events[name].to_numpy()
        return _sortable(values) if name == "order" and values.dtype == np.float64 else values

    def _isolate(self, first: int, frame: pl.DataFrame, places: NDArray[np.int64], rules: pl.Series) -> None:
        if len(places):
            self.quarantine.add("interactions", pl.Series(places + first), rules, frame[places])


def _joined(pieces: list[NDArray[Any]], dtype: DTypeLike) -> NDArray[Any]:
    """One array of a column; pieces are freed as they are copied, so that no column is held twice."""
    whole = np.empty(sum(map(len, pieces)), dtype=dtype)
    end = len(whole)
    while pieces:
        piece = pieces.pop()
        whole[end - len(piece) : end] = piece
        end -= len(piece)
    return whole


def _sortable(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Integers in the order of floats: the bits of a float, the lower ones flipped where it is negative."""
    bits = (values + 0.0).view(np.int64)
    return np.where(bits < 0, bits ^ np.int64(0x7FFFFFFFFFFFFFFF), bits)
