"""Valid events to sequences: sorted by user and time, duplicates out, filters applied."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrieval.data.ids import IdEncoder
from retrieval.data.interactions import Interactions
from retrieval.data.kernels import group_by_user, keep_frequent, kept_per_user, mark_duplicates, sort_each_user
from retrieval.data.settings import FilterSettings


@dataclass
class SortedEvents:
    """Events by user (in order of id), then time, tie-break, input row.

    `users` are the ids in row order; `offsets` int64 [U+1]; `columns` holds item (int32, codes of the item encoder),
    time (int64) and what else was declared, [E]; `places` are positions in the order of the input.
    """

    users: pl.Series
    offsets: NDArray[np.int64]
    columns: dict[str, NDArray[Any]]
    places: NDArray[Any]
    names: dict[str, list[str]] = field(default_factory=dict)
    """Of the fields that hold names: the name of code c at place c."""

    def select(self, keep: NDArray[np.bool_]) -> None:
        """Drop the events that are False in `keep`, and the users that have none left; in place."""
        if keep.all():
            return
        counts = kept_per_user(self.offsets, keep)
        for name in self.columns:
            self.columns[name] = self.columns[name][keep]
        self.places = self.places[keep]
        self.users = self.users.filter(pl.Series(counts > 0))
        self.offsets = np.concatenate([[0], np.cumsum(counts[counts > 0])]).astype(np.int64)

    def owners(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The user rows of events."""
        return np.searchsorted(self.offsets, positions, side="right") - 1


def sort_events(interactions: Interactions, users: IdEncoder) -> SortedEvents:
    """Counting sort by user, then a stable sort inside each user. Empties `interactions.columns` as it goes.

    A sort of whole rows would hold them several times; here every column is gathered once and the old one freed.
    """
    columns = interactions.columns
    ids, rank = ranked(users.ids())
    codes = rank[columns.pop("user")]
    offsets = np.zeros(len(ids) + 1, dtype=np.int64)
    places = np.empty(len(codes), dtype=np.uint32 if len(codes) < 2**32 else np.int64)
    group_by_user(codes, offsets, places)
    del codes
    times = columns.pop("time")[places]
    order = columns.pop("order")[places] if "order" in columns else np.empty(0, dtype=np.int64)
    sort_each_user(offsets, times, order, places)
    gathered: dict[str, NDArray[Any]] = {"time": times} | ({"order": order} if len(order) else {})
    for name in list(columns):
        gathered[name] = columns.pop(name)[places]
    return SortedEvents(ids, offsets, gathered, places)


def ranked(ids: pl.Series) -> tuple[pl.Series, NDArray[np.int32]]:
    """The ids in order, and the place of each old id among them, int32."""
    by_id = ids.arg_sort().to_numpy()
    rank = np.empty(len(by_id), dtype=np.int32)
    rank[by_id] = np.arange(len(by_id), dtype=np.int32)
    return ids.gather(by_id), rank


def duplicates(events: SortedEvents) -> NDArray[np.bool_]:
    """False at every event that equals an earlier one in all declared columns, bool [E]."""
    keep = np.ones(len(events.places), dtype=np.bool_)
    columns = events.columns
    order = columns.get("order", np.empty(0, dtype=np.int64))
    mark_duplicates(events.offsets, columns["time"], order, columns["item"], _extra(columns), keep)
    return keep


def _extra(columns: dict[str, NDArray[Any]]) -> NDArray[np.int64]:
    """Kind, weight and fields as one number; empty when there is none of them."""
    further = [name for name in columns if name.startswith("field_")]
    if not further and "kind" not in columns and "weight" not in columns:
        return np.empty(0, dtype=np.int64)
    extra = np.zeros(len(columns["item"]), dtype=np.int64)
    if "kind" in columns:
        extra |= columns["kind"].astype(np.int64) << 32
    if "weight" in columns:
        extra |= columns["weight"].view(np.uint32).astype(np.int64)
    for name in further:
        # Another column, another turn: what differs in one of them differs in the number, but for one case in 2^32 or so.
        extra = extra * np.int64(0x9E3779B97F4A7C1) + columns[name].view(np.int32)
    return extra


def filter_rare(events: SortedEvents, filters: FilterSettings, n_items: int) -> int:
    """Drop users and items below their minimum; returns how many events went.

    `once` counts users and items on the same events and filters both, so a count may fall below its minimum again;
    `until_stable` repeats until none does (the k-core of the log).
    """
    if filters.min_user_events == filters.min_item_events == 1:
        return 0
    keep = np.ones(len(events.places), dtype=np.bool_)
    minimum = (filters.min_user_events, filters.min_item_events)
    removed: int = keep_frequent(events.offsets, events.columns["item"], keep, minimum, n_items, filters.until_stable)
    events.select(keep)
    return removed
