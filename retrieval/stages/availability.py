"""What could have been given to somebody at an earlier moment: nothing that was not there yet, nothing that a filter was to keep out."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.data.dataset import Dataset
from retrieval.data.splits import first_training_times
from retrieval.stages.item_filter import item_column, span_of_days
from retrieval.stages.recipe import Recipe

_EVER, _NEVER = np.iinfo(np.int64).min, np.iinfo(np.int64).max
# Of the items that may be given during a search for several moments, the share that may not be during all of it.
_MOST_TURNOVER = 0.1
Times = NDArray[np.int64]


@dataclass(frozen=True)
class Availability:
    """The moments from `since` to `until`, both included, at which an item may be given: int64 [N] each, in the unit of the log's times."""

    since: Times
    until: Times

    @classmethod
    def of(cls, recipe: Recipe, dataset: Dataset, *, unmet: bool) -> "Availability":
        """From behind an item's first training event on, and while it passes the filters that count days; always where users share no
        clock.

        Args:
            recipe: with the filters and the split.
            dataset: with the events.
            unmet: whether an item without a training event is there all the time, or never.
        """
        since, until = np.full(dataset.catalog.n_items, _EVER), np.full(dataset.catalog.n_items, _NEVER)
        if has_clock(recipe, dataset):
            first = first_training_times(dataset.split, dataset.sequences, len(since))
            since = np.where(first < _NEVER, first + 1, _EVER if unmet else _NEVER)
        for name, days in counted_days(recipe, dataset).items():
            column = item_column(name, dataset.catalog)
            made = column.fill_null(0).to_numpy()
            since = np.where(column.is_null(), _NEVER, np.maximum(since, made))
            until = np.minimum(until, made + span_of_days(days))
        return cls(since, until)

    def holds(self, rows: NDArray[np.int64], moments: Times) -> NDArray[np.bool_]:
        """Which of the items `rows` [R,P] (-1: none) may be given at `moments` [R]."""
        items, then = np.maximum(rows, 0), moments[:, None]
        found: NDArray[np.bool_] = (rows >= 0) & (self.since[items] <= then) & (then <= self.until[items])
        return found

    def between(self, first: int, last: int) -> NDArray[np.bool_]:
        """Items that may be given at some moment from first to last, bool [N]."""
        found: NDArray[np.bool_] = (self.since <= last) & (first <= self.until)
        return found

    def pieces(self, moments: Times) -> Iterator[slice]:
        """Pieces of R >= 1 ascending moments during which few items come or go: one search serves a piece."""
        yield from self._halved(moments, 0, len(moments))

    def _halved(self, moments: Times, first: int, end: int) -> Iterator[slice]:
        if self._turnover(moments[first], moments[end - 1]) <= _MOST_TURNOVER:
            yield slice(first, end)
        else:
            middle = (first + end) // 2
            yield from self._halved(moments, first, middle)
            yield from self._halved(moments, middle, end)

    def _turnover(self, first: int, last: int) -> float:
        """0 for a single moment."""
        some, throughout = self.between(first, last), (self.since <= first) & (last <= self.until)
        return 1.0 - float(throughout.sum()) / max(1, int(some.sum())) if some.any() else 0.0


def has_clock(recipe: Recipe, dataset: Dataset) -> bool:
    """Whether a time means the same for all users: a plain order is each user's own, unless the split cuts by it."""
    return dataset.in_seconds or recipe.split.cuts_in_time


def counted_days(recipe: Recipe, dataset: Dataset) -> dict[str, float]:
    """The days of every filter that counts them, where times are seconds."""
    asked = {name: rule.within_days for name, rule in recipe.recall.filter.where.items()}
    return {name: days for name, days in asked.items() if days is not None and dataset.in_seconds}


def without_counted_days(recipe: Recipe, dataset: Dataset) -> Recipe:
    """The recipe whose filters are the same at every moment."""
    counted = counted_days(recipe, dataset)
    where = {
        name: rule.model_copy(update={"within_days": None}) if name in counted else rule
        for name, rule in recipe.recall.filter.where.items()
    }
    lasting = recipe.recall.filter.model_copy(update={"where": where})
    return recipe.model_copy(update={"recall": recipe.recall.model_copy(update={"filter": lasting})})
