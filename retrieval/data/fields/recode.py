"""The fields of a dataset as they were coded for another one, so that a model reads what it was trained to read."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from retrieval.core.errors import UsageError
from retrieval.data.dataset import Dataset
from retrieval.data.fields.coding import Coding, FieldColumn, coded, coded_numbers, rows_of_names
from retrieval.data.fields.fit import derived_numbers
from retrieval.data.fields.settings import AgeField, EventField, GapField
from retrieval.data.fields.store import SIDES, Fields, Side
from retrieval.data.settings import DataSettings

Wanted = Mapping[Side, Mapping[str, Coding]]
# How values become rows; all else of a declaration says what the values are.
_CODED_BY = {"buckets", "edges", "min_count", "hashed"}


def codings_of(fields: Fields, chosen: Mapping[Side, set[str]]) -> Wanted:
    """The codings of some fields of each side."""
    return {side: {name: column.coding for name, column in getattr(fields, side).items() if name in chosen[side]} for side in SIDES}


def recoded(dataset: Dataset, data: DataSettings, wanted: Wanted) -> Fields:
    """The wanted fields of a dataset by other codings; codes that are the same anyway stay where they lie on disk.

    A name that the dataset's own vocabulary of events does not have, because its training part has too few of it, is unknown.

    Args:
        dataset: with values of items and users, and codes and numbers of events.
        data: what it was prepared with.
        wanted: side -> name -> coding.

    Raises:
        UsageError: the dataset does not have a field, or its names of events are hashed into other rows.
    """
    sides: dict[Side, Callable[[str, Coding, FieldColumn], FieldColumn]] = {
        "items": lambda name, coding, _: coded(coding, dataset.catalog.frame[f"field_{name}"]),
        "users": lambda name, coding, _: coded(coding, dataset.users[f"field_{name}"]),
        "events": lambda name, coding, column: _events(dataset, data.interactions.fields[name], coding, column),
    }
    found: dict[str, dict[str, FieldColumn]] = {}
    for side, recode in sides.items():
        columns = {column.coding.name: column for column in dataset.fields.chosen(side, list(wanted[side]))}
        found[side] = {
            name: columns[name] if columns[name].coding == coding else recode(name, coding, columns[name])
            for name, coding in wanted[side].items()
        }
    return Fields(**found)


def other_source(now: Mapping[str, Any], was: Mapping[str, Any], chosen: Mapping[Side, set[str]]) -> str:
    """The first of some fields that is of something else now, so that no coding can help; "" for none.

    Args:
        now: the [data] table of a dataset, as its manifest keeps it.
        was: that of the dataset which the codings are of.
        chosen: names by side.
    """
    tables = {"items": "items", "users": "users", "events": "interactions"}
    for side, table in tables.items():
        for name in sorted(chosen[side]):  # type: ignore[index]
            declared = [_source(each[table]["fields"].get(name)) for each in (now, was)]
            if declared[0] != declared[1]:
                return f"{side}.{name}"
    return ""


def _source(declared: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if declared is None else {name: value for name, value in declared.items() if name not in _CODED_BY}


def _events(dataset: Dataset, settings: EventField, coding: Coding, column: FieldColumn) -> FieldColumn:
    if isinstance(settings, (GapField, AgeField)):
        return coded_numbers(coding, derived_numbers(settings, dataset.sequences, dataset.catalog.frame))
    if column.numbers is not None:
        return coded_numbers(coding, np.asarray(column.numbers))
    if column.coding.hashed:
        raise UsageError(
            f"names of '{coding.name}' are hashed into {column.coding.hashed} rows, and not as the model reads them",
            where="data.interactions.fields",
            remedy="train a model anew",
        )
    assert column.codes is not None  # noqa: S101 - names are codes
    rows = np.concatenate([[0], rows_of_names(coding, column.coding.names)]).astype(np.int32)
    return FieldColumn(coding, rows[column.codes])
