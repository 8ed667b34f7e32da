"""Times: any column to whole microseconds since 1970 (UTC), or to the log's plain order."""

import datetime as dt
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrieval.core.errors import DataContractError
from retrieval.data.columns import UNORDERED, Sort, Source
from retrieval.data.fields.settings import TimeField, TimeUnit
from retrieval.data.files import reading
from retrieval.data.settings import ContractSettings

MICROSECONDS = 1_000_000
_SAMPLE = 10_000
_MILLISECONDS_FROM = 1e11
"""1973 in milliseconds, the year 5138 in seconds."""
SECONDS_FROM = 1e8
"""1973 in seconds; a smaller median is the number of a step."""
_SCALE = {"seconds": MICROSECONDS, "milliseconds": 1_000, "datetime": 1, "order": 1}
_FORMATS = ("%Y-%m-%d %H:%M:%S%.f%:z", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d")


@dataclass(frozen=True)
class TimeColumn:
    """How a time column becomes Int64 (microseconds, or the order), and the rules it may break, by name."""

    value: pl.Expr
    rules: dict[str, pl.Expr]


def time_unit(source: Source, column: str, declared: TimeUnit, setting: str = "time_unit") -> TimeUnit:
    """The unit of a time column: the declared one, or what the type and the median of the first values say.

    Args:
        source: the table.
        column: of it.
        declared: by the recipe's `setting` of the table.
        setting: for messages.

    Raises:
        DataContractError: the column's type cannot be a time, or contradicts the declared unit.
    """
    sorts = source.sorts_of(column)
    if sorts & UNORDERED:
        raise DataContractError(f"column '{column}' has the wrong type", where=source.where, expected="numbers or datetimes")
    if "datetime" in sorts or (sorts & {"text", "untyped"} and not _sample_is_numeric(source, column)):
        return _checked(source, column, declared, "datetime", {"auto", "datetime"}, setting)
    if declared == "auto":
        return _unit_of_size(_sample(source, column))
    return _checked(source, column, declared, declared, {"seconds", "milliseconds", "order"}, setting)


def field_unit(source: Source, name: str, field: TimeField) -> TimeUnit:
    """The unit of a field of items or users. Raises as `time_unit`, and where numbers do not say what they count."""
    column, setting = field.column_of(name), f"fields.{name}.unit"
    unit = time_unit(source, column, field.unit, setting)
    if unit == "order" and field.unit == "auto":
        raise DataContractError(
            f"column '{column}' does not say its unit: half of its first values are below {SECONDS_FROM:,.0f}, as a year is, or 20240501",
            where=source.where,
            expected="datetimes, 2024-05-01, or epoch seconds since 1973",
            remedy=f"set data.{source.name}.{setting} to 'seconds' or 'order', or declare the field as numeric",
        )
    return unit


def _checked(source: Source, column: str, declared: TimeUnit, found: TimeUnit, allowed: set[TimeUnit], setting: str) -> TimeUnit:
    if declared not in allowed:
        what = "datetimes" if found == "datetime" and declared != "datetime" else "numbers"
        raise DataContractError(
            f"column '{column}' holds {what}, but the time unit is '{declared}'",
            where=source.where,
            remedy=f"set data.{source.name}.{setting} to {' or '.join(sorted(allowed))}",
        )
    return found


def _unit_of_size(sample: pl.Series) -> TimeUnit:
    size = _size(sample.cast(pl.Float64, strict=False).drop_nulls().to_numpy())
    if size >= _MILLISECONDS_FROM:
        return "milliseconds"
    return "seconds" if size >= SECONDS_FROM else "order"


def ticks(values: NDArray[np.generic]) -> int:
    """How many units of a column of moments since 1970 are a second, as its median says: 1, 10^3, 10^6 or 10^9; 0 where it has none."""
    size = _size(np.asarray(values, np.float64))
    steps = np.searchsorted(SECONDS_FROM * 1e3 ** np.arange(4), size, side="right")
    return int(10 ** (3 * (steps - 1))) if steps else 0


def _size(values: NDArray[np.float64]) -> float:
    values = values[np.isfinite(values)]
    return float(np.median(np.abs(values))) if len(values) else 0.0


def _sample(source: Source, column: str) -> pl.Series:
    file = source.files[0]
    with reading(file.path):
        return file.scan().select(column).head(_SAMPLE).collect()[column]


def _sample_is_numeric(source: Source, column: str) -> bool:
    values = _sample(source, column).cast(pl.String).drop_nulls()
    numeric = values.cast(pl.Float64, strict=False).is_not_null().sum()
    return 2 * numeric >= len(values)


def time_column(column: str, sort: Sort, unit: TimeUnit, contract: ContractSettings) -> TimeColumn:
    """The expressions for a time column of the given sort in a file."""
    if unit == "datetime":
        return _datetimes(pl.col(column), sort, contract)
    number = (
        pl.col(column) if sort in ("integer", "float") else pl.col(column).cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False)
    )
    wide = number.cast(pl.Float64)
    rules = {
        "null_time": pl.col(column).is_null(),
        "unreadable_time": pl.col(column).is_not_null() & number.is_null(),
        "nan_time": wide.is_nan(),
        "infinite_time": wide.is_infinite(),
        "negative_time": number < 0,
    }
    scale = _SCALE[unit]
    if unit == "order":
        # Beyond 2^53 neighbouring steps of a float would fall together.
        rules |= {"fractional_time": wide != wide.floor(), "late_time": wide > 2.0**62}
    else:
        rules |= {"early_time": wide < limit(contract.earliest) / scale, "late_time": wide > limit(contract.latest) / scale}
    value = (number * scale).round() if sort != "integer" else number.cast(pl.Int64, strict=False) * scale
    return TimeColumn(value.cast(pl.Int64, strict=False), rules)


def _datetimes(raw: pl.Expr, sort: Sort, contract: ContractSettings) -> TimeColumn:
    value = _parsed(raw.cast(pl.String)) if sort in ("text", "untyped") else raw.cast(pl.Datetime("us")).cast(pl.Int64)
    rules = {
        "null_time": raw.is_null(),
        "unreadable_time": raw.is_not_null() & value.is_null(),
        "negative_time": value < 0,
        "early_time": value < limit(contract.earliest),
        "late_time": value > limit(contract.latest),
    }
    return TimeColumn(value, rules)


def _parsed(text: pl.Expr) -> pl.Expr:
    spaced = text.str.strip_chars().str.replace("T", " ", literal=True).str.replace(r"Z$", "+00:00")
    return pl.coalesce([spaced.str.to_datetime(form, time_unit="us", strict=False).cast(pl.Int64) for form in _FORMATS])


def limit(moment: dt.datetime | None) -> int:
    """A moment in microseconds since 1970, 0 for none; a naive one is UTC."""
    return int(_utc(moment).timestamp() * MICROSECONDS) if moment else 0


def _utc(moment: dt.datetime) -> dt.datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
