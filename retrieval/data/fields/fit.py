"""Fields of a dataset: fitted on its training part, coded for every row, compared with what comes later."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrieval.core.logging import get_logger
from retrieval.data.fields.coding import (
    Coding,
    Counts,
    FieldColumn,
    bucket_coding,
    code_column,
    coded_numbers,
    names_coding,
    require_values,
    rows_of_names,
)
from retrieval.data.fields.drift import drift_of
from retrieval.data.fields.settings import AgeField, CategoricalField, EventField, EventNumericField, GapField
from retrieval.data.fields.store import Fields
from retrieval.data.sequences import SequenceDataset
from retrieval.data.settings import DataSettings
from retrieval.data.splits import Split, ranges

_NEW_UNKNOWNS = 0.05
_MOSTLY = 0.5
log = get_logger("prepare")


class RawEvents:
    """Columns of the log as they were read: codes of names met int32 [E] with the names, and numbers float32 [E]."""

    def __init__(self, columns: Mapping[str, NDArray[Any]], names: Mapping[str, list[str]]) -> None:
        self.columns, self.names = columns, names


class FieldFit:
    """Fits the declared fields of one dataset.

    Args:
        data: the recipe's [data] table.
        sequences: the events.
        split: which of them train.
    """

    def __init__(self, data: DataSettings, sequences: SequenceDataset, split: Split) -> None:
        self.data, self.sequences = data, sequences
        self.owner = np.repeat(np.arange(sequences.n_users), sequences.lengths)
        self.training = _marked(sequences, np.zeros_like(split.train_end), split.train_end)
        self.later = _marked(sequences, split.test_start, split.test_end)

    def fit(self, items: pl.DataFrame, users: pl.DataFrame, raw: RawEvents) -> tuple[Fields, dict[str, Any]]:
        """The fields, and how each of them drifts from training to test."""
        by_item = [self._per(np.asarray(self.sequences.items), items.height, mask) for mask in (self.training, self.later)]
        by_user = [self._per(self.owner, users.height, mask) for mask in (self.training, self.later)]
        found = Fields(
            {name: code_column(name, each, items[f"field_{name}"], by_item[0]) for name, each in self.data.items.fields.items()},
            {name: code_column(name, each, users[f"field_{name}"], by_user[0]) for name, each in self.data.users.fields.items()},
            {name: self._event_field(name, each, items, raw) for name, each in self.data.interactions.fields.items()},
        )
        sides = {"items": by_item, "users": by_user, "events": [self.training.astype(np.int64), self.later.astype(np.int64)]}
        drift = {side: {name: drift_of(column, *sides[side]) for name, column in getattr(found, side).items()} for side in sides}
        _warn(drift)
        return found, drift

    def _per(self, rows: NDArray[Any], count: int, mask: NDArray[np.bool_]) -> Counts:
        counts: Counts = np.bincount(rows[mask], minlength=count)
        return counts

    def _event_field(self, name: str, settings: EventField, items: pl.DataFrame, raw: RawEvents) -> FieldColumn:
        if isinstance(settings, CategoricalField):
            return self._names(name, settings, raw)
        if isinstance(settings, EventNumericField):
            numbers = raw.columns[name]
            self._require_values(name, numbers)
            coding = bucket_coding(name, settings, settings.kind, numbers[self.training].astype(np.float64))
            return replace(coded_numbers(coding, numbers), numbers=numbers)
        numbers = derived_numbers(settings, self.sequences, items)
        self._require_values(name, numbers)
        return coded_numbers(Coding(name=name, kind=settings.kind, rows=len(settings.edges) + 2, edges=settings.edges), numbers)

    def _require_values(self, name: str, numbers: NDArray[np.floating]) -> None:
        require_values(name, ~np.isnan(numbers[self.training]))

    def _names(self, name: str, settings: CategoricalField, raw: RawEvents) -> FieldColumn:
        codes, names = raw.columns[name], raw.names[name]
        counts = np.bincount(codes[self.training], minlength=len(names))
        # The empty name stands for no value: none of a vocabulary, and none to hash.
        missing = [place for place, each in enumerate(names) if not each]
        counts[missing] = 0
        require_values(name, counts > 0)
        coding = names_coding(name, settings, settings.kind, names, counts)
        rows = rows_of_names(coding, names)
        rows[missing] = 0
        return FieldColumn(coding, rows[codes])


def derived_numbers(settings: GapField | AgeField, sequences: SequenceDataset, items: pl.DataFrame) -> NDArray[np.float64]:
    """What follows from events and the table of items alone, float64 [E]; NaN is missing."""
    return _gaps(sequences) if isinstance(settings, GapField) else _ages(settings, sequences, items)


def _gaps(sequences: SequenceDataset) -> NDArray[np.float64]:
    gaps = np.diff(np.asarray(sequences.times, dtype=np.float64), prepend=np.nan)
    starts = sequences.offsets[:-1][sequences.lengths > 0]
    gaps[starts] = np.nan
    return gaps


def _ages(settings: AgeField, sequences: SequenceDataset, items: pl.DataFrame) -> NDArray[np.float64]:
    begun = items[f"field_{settings.of}"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    ages: NDArray[np.float64] = sequences.times - begun[sequences.items]
    return ages


def _marked(sequences: SequenceDataset, start: Counts, end: Counts) -> NDArray[np.bool_]:
    marked = np.zeros(sequences.n_events, dtype=np.bool_)
    marked[ranges(sequences.offsets[:-1] + start, end - start)[0]] = True
    return marked


def _warn(drift: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    for side, fields in drift.items():
        for name, found in fields.items():
            shares = {key: found[key] for key in ("unknown_in_training", "unknown_later")}
            if found["alike_in_training"]:
                log.warning("a field says the same of every event of training", side=side, field=name, **shares)
            elif shares["unknown_in_training"] > _MOSTLY:
                log.warning("most values of a field are unknown in training", side=side, field=name, **shares)
            if shares["unknown_later"] > shares["unknown_in_training"] + _NEW_UNKNOWNS:
                log.warning("a field has new unknown values in the test part", side=side, field=name, **shares)
