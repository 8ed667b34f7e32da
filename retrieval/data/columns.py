"""The declared columns of a source: that they exist in every file, and of what sort they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import polars as pl

from retrieval.core.errors import DataContractError, UsageError
from retrieval.core.settings import did_you_mean
from retrieval.data.files import InputFile

Sort = Literal["integer", "float", "text", "untyped", "datetime", "boolean", "null", "list", "other"]
"""`untyped` is text that may stand for a number: a CSV column or a partition key. `null` is a type of no values at all."""
UNORDERED: frozenset[Sort] = frozenset({"boolean", "null", "list", "other"})
"""What no id and no time can be."""


@dataclass(frozen=True)
class Column:
    """A column of one file."""

    name: str
    sort: Sort
    where: Path
    """A path to name in messages."""

    def refuse(self, *sorts: Sort, expected: str) -> None:
        """Stop where the column is of one of the sorts.

        Raises:
            DataContractError: it is.
        """
        if self.sort in sorts:
            raise DataContractError(f"column '{self.name}' has the wrong type ({self.sort})", where=self.where, expected=expected)

    def refuse_all_but(self, *sorts: Sort, expected: str) -> None:
        """Stop where the column is of none of the sorts and holds something. Raises as `refuse`."""
        self.refuse(*({*get_args(Sort)} - {*sorts, "null"}), expected=expected)


@dataclass(frozen=True)
class Source:
    """The files of one table and the sorts of the declared columns in each of them."""

    name: str
    files: list[InputFile]
    sorts: list[dict[str, Sort]]
    """column -> sort, one mapping a file."""

    @property
    def columns(self) -> list[str]:
        """The declared columns, each once, in the order of declaration."""
        return list(self.sorts[0])

    @property
    def where(self) -> Path:
        """A path to name in messages about the whole source."""
        return self.files[0].path if len(self.files) == 1 else self.files[0].path.parent

    def sorts_of(self, column: str) -> set[Sort]:
        """The sorts of a column over all files."""
        return {sorts[column] for sorts in self.sorts}


def declared_source(name: str, files: list[InputFile], declared: Mapping[str, str]) -> Source:
    """Check the columns that a recipe declares.

    Args:
        name: interactions, items or users.
        files: the source's files.
        declared: setting -> column, as in {"user": "user_id"}; columns without a name are not used.

    Raises:
        UsageError: the first file lacks a column.
        DataContractError: a file cannot be read, or a later one lacks a column (schema drift).
    """
    wanted = {setting: column for setting, column in declared.items() if column}
    schemas = [file.schema() for file in files]
    for setting, column in wanted.items():
        if column not in schemas[0]:
            raise UsageError(
                f"there is no column '{column}' (data.{name}.{setting}){did_you_mean(column, schemas[0])}",
                where=files[0].path,
                expected=f"one of {', '.join(schemas[0])}",
                remedy=f"set data.{name}.{setting} in the recipe",
            )
    for file, schema in zip(files, schemas, strict=True):
        _refuse_drift(file, schema, files[0], schemas[0], wanted)
    sorts = [{c: _sort(file, c, schema[c]) for c in wanted.values()} for file, schema in zip(files, schemas, strict=True)]
    return Source(name, files, sorts)


def _refuse_drift(file: InputFile, schema: pl.Schema, first: InputFile, expected: pl.Schema, wanted: Mapping[str, str]) -> None:
    lost = [column for column in wanted.values() if column not in schema]
    if lost:
        new = [column for column in schema if column not in expected]
        raise DataContractError(
            f"schema drift: lacks {', '.join(lost)}, has {', '.join(new) or 'nothing'} instead",
            where=file.path,
            expected=f"the columns of {first.name}",
            remedy="write the file again, or keep only files of one table in the folder",
        )


def _sort(file: InputFile, column: str, dtype: pl.DataType) -> Sort:
    if file.is_untyped(column):
        return "untyped"
    if dtype.is_integer():
        return "integer"
    if dtype.is_float() or dtype.is_decimal():
        return "float"
    if isinstance(dtype, (pl.String, pl.Categorical, pl.Enum)):
        return "text"
    if isinstance(dtype, (pl.Datetime, pl.Date)):
        return "datetime"
    if isinstance(dtype, (pl.Boolean, pl.Null)):
        return "boolean" if isinstance(dtype, pl.Boolean) else "null"
    return "list" if isinstance(dtype, (pl.List, pl.Array)) else "other"
