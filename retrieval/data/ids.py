"""Ids of users and items: integers or text, from any file; their codes while a log is read."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrieval.core.errors import DataContractError
from retrieval.data.columns import UNORDERED, Sort, Source
from retrieval.data.files import reading
from retrieval.data.kernels import insert_keys, reinsert_keys

IdKind = Literal["integer", "text"]
CANONICAL = r"^(0|-?[1-9][0-9]*)$"
"""An integer as a program writes it. `007` is text: reading it as 7 would merge two ids."""
EXACT_FLOAT = 2.0**53
"""Beyond it neighbouring integers fall together in a float."""


@dataclass(frozen=True)
class IdColumn:
    """How an id column of one file becomes ids: an expression for the value and one for every rule it may break."""

    value: pl.Expr
    null: pl.Expr
    empty: pl.Expr
    wrong_type: pl.Expr
    out_of_range: pl.Expr


def id_kind(columns: Iterable[tuple[Source, str]], max_bad_share: float) -> IdKind:
    """Whether ids are integers or text, over all sources that name them.

    Typed columns decide. CSV columns alone are integers when all but `max_bad_share` of their values are written as
    integers are, so that a few broken rows do not turn every id into text.

    Raises:
        DataContractError: a column has a type that cannot be an id, or typed columns disagree.
    """
    used = list(columns)
    sorts = {sort: source for source, column in used for sort in sorted(source.sorts_of(column))}
    for source, column in used:
        for sort in source.sorts_of(column) & (UNORDERED | {"datetime"}):
            raise DataContractError(f"column '{column}' has the wrong type ({sort})", where=source.where, expected="integers or text")
    numbers = sorts.get("integer") or sorts.get("float")
    if numbers and "text" in sorts:
        raise DataContractError(
            f"ids of '{used[0][1]}' are integers in {numbers.where} and text in {sorts['text'].where}",
            expected="one type in every file",
            remedy="write the ids with one type",
        )
    if numbers:
        return "integer"
    return "text" if "text" in sorts or not _written_as_integers(used, max_bad_share) else "integer"


def _written_as_integers(columns: list[tuple[Source, str]], max_bad_share: float) -> bool:
    canonical = total = 0
    for source, column in columns:
        values = pl.col(column).drop_nulls()
        for file in source.files:
            with reading(file.path):
                found = (
                    file.scan()
                    .select(values.str.contains(CANONICAL).sum().alias("good"), values.len().alias("all"))
                    .collect(engine="streaming")
                )
            canonical, total = canonical + found["good"].item(), total + found["all"].item()
    return total > 0 and total - canonical <= max_bad_share * total


def id_column(column: str, sort: Sort, kind: IdKind) -> IdColumn:
    """The expressions for an id column of the given sort."""
    raw, never = pl.col(column), pl.lit(value=False)
    if sort == "integer":
        value = raw.cast(pl.Int64, strict=False)
        return IdColumn(value, raw.is_null(), never, never, raw.is_not_null() & value.is_null())
    if sort == "float":
        return _float_ids(raw.cast(pl.Float64))
    text = raw.cast(pl.String)
    empty = text.str.strip_chars() == ""
    if kind == "text":
        return IdColumn(text, text.is_null(), empty, never, never)
    canonical = text.str.contains(CANONICAL)
    value = text.cast(pl.Int64, strict=False)
    return IdColumn(value, text.is_null(), empty, ~canonical, value.is_null())


def _float_ids(raw: pl.Expr) -> IdColumn:
    # A column of integers with gaps comes out of some writers as floats.
    whole = (raw == raw.floor()) & raw.is_finite()
    in_range = raw.abs() <= EXACT_FLOAT
    value = pl.when(whole & in_range).then(raw).cast(pl.Int64, strict=False)
    return IdColumn(value, raw.is_null() | raw.is_nan(), pl.lit(value=False), ~whole, ~in_range)


class IdEncoder(Protocol):
    """Codes 0, 1, .. for ids, the same for the same id over all batches."""

    def encode(self, ids: pl.Series) -> NDArray[np.int32]:
        """The codes of ids without nulls; new ids get new codes."""

    def ids(self) -> pl.Series:
        """All ids met so far; the id of code c is at place c."""

    def __len__(self) -> int: ...


def id_encoder(kind: IdKind) -> IdEncoder:
    """An encoder for ids of a kind."""
    return IntegerEncoder() if kind == "integer" else TextEncoder()


class IntegerEncoder:
    """Integer ids by an open-addressing hash table, at most half full."""

    def __init__(self) -> None:
        self._keys = np.empty(1024, dtype=np.int64)
        self._slots = np.full(2048, -1, dtype=np.int32)
        self._used = 0

    def encode(self, ids: pl.Series) -> NDArray[np.int32]:
        keys = ids.to_numpy()
        codes = np.empty(len(keys), dtype=np.int32)
        done = 0
        while done < len(keys):
            # The kernel stops when the table is half full.
            done, self._used = insert_keys(keys, done, codes, self._keys, self._slots, self._used)
            if done < len(keys):
                self._grow()
        return codes

    def ids(self) -> pl.Series:
        return pl.Series("id", self._keys[: self._used], dtype=pl.Int64)

    def __len__(self) -> int:
        return self._used

    def _grow(self) -> None:
        self._keys = np.concatenate([self._keys, np.empty_like(self._keys)])
        self._slots = np.full(2 * len(self._slots), -1, dtype=np.int32)
        reinsert_keys(self._keys, self._slots, self._used)


class TextEncoder:
    """Text ids by a table of categories that lives as long as the encoder."""

    def __init__(self) -> None:
        self._type = pl.Categorical(pl.Categories.random("retrieval-ids", physical=pl.UInt32))
        # polars forgets the table with the last column of its type, and would give the same codes to other ids.
        self._alive = pl.Series("id", [], dtype=self._type)
        self._used = 0

    def encode(self, ids: pl.Series) -> NDArray[np.int32]:
        codes = ids.cast(self._type).to_physical().to_numpy().astype(np.int32)
        self._used = max(self._used, int(codes.max(initial=-1)) + 1)
        return codes

    def ids(self) -> pl.Series:
        codes = pl.Series("id", np.arange(self._used, dtype=np.uint32))
        return codes.cat.to(self._type).cast(pl.String)

    def __len__(self) -> int:
        return self._used
