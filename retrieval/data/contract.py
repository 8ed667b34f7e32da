"""The contract of the event log: what makes a row of it an event, as expressions over one file's columns."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from retrieval.core.errors import DataContractError
from retrieval.data.columns import UNORDERED, Column, Sort, Source
from retrieval.data.fields.settings import AgeField, CategoricalField, EventNumericField, GapField, TimeUnit
from retrieval.data.fields.values import names, numbers
from retrieval.data.ids import IdColumn, IdKind, id_column
from retrieval.data.settings import ContractSettings, InteractionSource
from retrieval.data.times import time_column


@dataclass(frozen=True)
class EventContract:
    """How the declared columns become events."""

    columns: InteractionSource
    settings: ContractSettings
    user_kind: IdKind
    item_kind: IdKind
    unit: TimeUnit
    order_as_float: bool


@dataclass(frozen=True)
class RowCheck:
    """Expressions for one file: the values of an event, and the number of the first rule that its row breaks."""

    values: dict[str, pl.Expr]
    names: list[str]
    rule: pl.Expr
    """UInt8, a place in `names`; null for a good row."""


def order_as_float(source: Source, column: str) -> bool:
    """Whether a tie-break column needs floats somewhere.

    Raises:
        DataContractError: its type has no order that events could follow.
    """
    if not column:
        return False
    sorts = source.sorts_of(column)
    if sorts & (UNORDERED | {"text"}):
        raise DataContractError(f"column '{column}' cannot order events", where=source.where, expected="numbers or datetimes")
    return bool(sorts & {"float", "untyped"})


def row_check(contract: EventContract, sorts: Mapping[str, Sort], where: Path) -> RowCheck:
    """The check for the file `where`, whose columns are of the given sorts.

    Raises:
        DataContractError: a column has a type that cannot be what it is declared to be.
    """
    columns = contract.columns
    user = id_column(columns.user, sorts[columns.user], contract.user_kind)
    item = id_column(columns.item, sorts[columns.item], contract.item_kind)
    time = time_column(columns.time, sorts[columns.time], contract.unit, contract.settings)
    values = {"user": user.value, "item": item.value, "time": time.value}
    rules = id_rules(user, "user") | id_rules(item, "item") | time.rules
    for name, (value, broken) in _optional(contract, {name: Column(name, sort, where) for name, sort in sorts.items()}).items():
        values[name] = value
        rules[f"bad_{name}"] = broken
    return RowCheck(values, list(rules), first_broken(list(rules.values())))


def id_rules(column: IdColumn, name: str) -> dict[str, pl.Expr]:
    """The rules of an id column, by name."""
    return {
        f"null_{name}": column.null,
        f"empty_{name}": column.empty,
        f"wrong_type_{name}": column.wrong_type,
        f"out_of_range_{name}": column.out_of_range,
    }


def first_broken(rules: list[pl.Expr]) -> pl.Expr:
    """The place of the first rule that holds, UInt8; null where none does."""
    return pl.coalesce([pl.when(rule).then(pl.lit(place, pl.UInt8)) for place, rule in enumerate(rules)])


def _optional(contract: EventContract, typed: Mapping[str, Column]) -> dict[str, tuple[pl.Expr, pl.Expr]]:
    columns, found = contract.columns, dict[str, tuple[pl.Expr, pl.Expr]]()
    if columns.order:
        value = _order(pl.col(columns.order), as_float=contract.order_as_float)
        found["order"] = (value, value.is_null() | value.cast(pl.Float64).is_nan())
    if columns.weight:
        typed[columns.weight].refuse("datetime", "list", "other", expected="numbers")
        weight = pl.col(columns.weight).cast(pl.Float64, strict=False)
        # The dataset holds float32: what is infinite there is too large here.
        bad = weight.is_null() | weight.is_nan() | (weight < 0) | (weight.cast(pl.Float32) == math.inf)
        found["weight"] = (weight.cast(pl.Float32), bad)
    if columns.kind:
        typed[columns.kind].refuse("list", "other", expected="text")
        kind = pl.col(columns.kind).cast(pl.String)
        found["kind"] = (kind, kind.is_null() | (kind.str.strip_chars() == ""))
    for name, field in event_columns(columns).items():
        found[f"field_{name}"] = _field(typed[field.column_of(name)], field)
    return found


def event_columns(columns: InteractionSource) -> dict[str, CategoricalField | EventNumericField]:
    """The fields of events that have a column of their own."""
    return {name: field for name, field in columns.fields.items() if not isinstance(field, (GapField, AgeField))}


def read_columns(columns: InteractionSource) -> dict[str, str]:
    """Setting -> column of those fields."""
    return {f"fields.{name}": field.column_of(name) for name, field in event_columns(columns).items()}


def _field(column: Column, field: CategoricalField | EventNumericField) -> tuple[pl.Expr, pl.Expr]:
    """A name, empty where there is none, or a number, NaN where there is none; broken is what cannot be read as one."""
    if isinstance(field, CategoricalField):
        found = names(column, field.pattern)
        return found.value.fill_null(""), found.broken
    found = numbers(column, field.pattern)
    return found.value.cast(pl.Float32).fill_null(math.nan), found.broken


def _order(raw: pl.Expr, *, as_float: bool) -> pl.Expr:
    return raw.cast(pl.Float64, strict=False) if as_float else raw.cast(pl.Int64, strict=False)
