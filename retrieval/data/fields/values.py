"""What the cells of a column say: names, numbers, or nothing. The same for tables and for the log."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from retrieval.data.columns import Column
from retrieval.data.ids import EXACT_FLOAT

NAMES = pl.List(pl.String)
_WRITTEN = ("text", "untyped")
_NOT_A_NUMBER = ["NaN", "nan"]
"""As writers of CSV put it where a number is missing."""
_LARGEST = float(np.finfo(np.float32).max)
_WHOLE = r"^(0|-?[1-9][0-9]*)\.0+$"


@dataclass(frozen=True)
class Values:
    """A column as a field's values, for the rows of one file.

    `value` is null where there is none. `broken` (Boolean, never null) marks cells that say something else: nothing is said by null,
    NaN and blank text.
    """

    value: pl.Expr
    broken: pl.Expr


def names(column: Column, pattern: str = "") -> Values:
    """One name a row, String without blanks around it.

    Raises:
        DataContractError: of lists, or of a type that is no text, number, datetime or boolean.
    """
    cell = told(column)
    if not pattern:
        return Values(_as_whole(cell) if column.sort == "untyped" else cell, pl.lit(value=False))
    found = cell.str.extract(pattern)
    return Values(_unless_blank(found), cell.is_not_null() & found.is_null())


def numbers(column: Column, pattern: str = "") -> Values:
    """One number a row, Float64, that float32 can hold: models read no other, and no deviation overflows.

    Raises:
        DataContractError: of lists, of datetimes, or of a type that is no text, number or boolean.
    """
    column.refuse("datetime", "list", "other", expected="numbers")
    written = bool(pattern) or column.sort in _WRITTEN
    cell = told(column) if written else pl.col(column.name)
    number = (cell.str.extract(pattern) if pattern else cell).cast(pl.Float64, strict=False)
    held = number.abs() <= _LARGEST
    broken = cell.is_not_null() & (number.is_null() | (number.is_not_nan() & ~held))
    return Values(pl.when(held).then(number), broken.fill_null(value=False))


def lists_of_names(column: Column, separator: str) -> pl.Expr:
    """The names of each row, List(String), each once, without blanks around them; an empty list where there is none.

    Args:
        column: lists, text with `separator` between the names, or one name a row.
        separator: of text.

    Raises:
        DataContractError: of another type.
    """
    column.refuse("other", expected="lists or text")
    if column.sort in _WRITTEN:
        lists = told(column).str.split(separator)
    elif column.sort == "list":
        lists = pl.col(column.name).map_batches(_named, return_dtype=NAMES)
    else:
        lists = pl.concat_list(told(column))
    name = _unless_blank(pl.element())
    name = _as_whole(name) if column.sort == "untyped" else name
    return lists.fill_null([]).list.eval(name.drop_nulls()).list.unique(maintain_order=True)


def vectors(column: Column, dimension: int) -> Values:
    """One vector of finite numbers a row, List(Float32); an empty one, or one of NaN alone, is none.

    Raises:
        DataContractError: of anything but lists.
    """
    column.refuse_all_but("list", expected=f"lists of {dimension} numbers")
    found = pl.col(column.name).cast(pl.List(pl.Float32), strict=False)
    whole = (found.list.len() == dimension) & _every(found, pl.element().is_finite())
    said = found.is_not_null() & ~_every(found, pl.element().is_nan())
    return Values(pl.when(whole).then(found), (said & ~whole).fill_null(value=False))


def told(column: Column) -> pl.Expr:
    """The text of each cell without blanks around it, null where it says nothing.

    A whole number is the text of an integer, whatever the column's type: one null makes floats of a column of integers in many writers.

    Raises:
        DataContractError: of lists, or of a type that is no text, number, datetime or boolean.
    """
    column.refuse("list", "other", expected="one value a row")
    raw = pl.col(column.name)
    if column.sort == "float":
        return _text_of_floats(raw)
    text = raw.cast(pl.String)
    if column.sort not in _WRITTEN:
        return text
    stripped = _unless_blank(text)
    return pl.when(~stripped.is_in(_NOT_A_NUMBER)).then(stripped) if column.sort == "untyped" else stripped


def _text_of_floats(raw: pl.Expr) -> pl.Expr:
    number = raw.cast(pl.Float64)
    whole = (number == number.floor()) & (number.abs() <= EXACT_FLOAT)
    return pl.when(whole).then(number.cast(pl.Int64, strict=False).cast(pl.String)).when(number.is_not_nan()).then(raw.cast(pl.String))


def _as_whole(text: pl.Expr) -> pl.Expr:
    """What `_text_of_floats` is for text that may stand for a number."""
    return text.str.replace(_WHOLE, "$1")


def _unless_blank(text: pl.Expr) -> pl.Expr:
    stripped = text.str.strip_chars()
    return pl.when(stripped != "").then(stripped)


def _named(lists: pl.Series) -> pl.Series:
    inner = getattr(lists.dtype, "inner", pl.String())
    if inner.is_float() or inner.is_decimal():
        return lists.cast(pl.List(inner)).list.eval(_text_of_floats(pl.element()))
    return lists.cast(NAMES)


def _every(lists: pl.Expr, holds: pl.Expr) -> pl.Expr:
    return lists.list.eval(holds.fill_null(value=False)).list.all()
