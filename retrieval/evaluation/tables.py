"""Reading other people's parquet: by arrow, in batches, with one-line errors.

Arrow and not polars, because a damaged file makes polars panic with an exception that no handler expects.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.core.errors import DataContractError

_BATCH_ROWS = 1 << 22
_UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError)


def parquet_files(paths: Sequence[Path]) -> list[Path]:
    """Files as they are; of a folder its part-*.parquet, or all its *.parquet where there are none, in order of name.

    Raises:
        DataContractError: a path does not exist, or a folder has no parquet file.
    """
    return [file for path in paths for file in _files_of(path)]


def _files_of(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = sorted(path.glob("part-*.parquet")) or sorted(path.glob("*.parquet"))
    if not found:
        raise DataContractError("no parquet file here", where=path, expected="a parquet file, or a folder with some")
    return found


@dataclass(frozen=True)
class Between:
    """Ids from `low` to before `high`; None is open."""

    low: Any = None
    high: Any = None

    def keep(self, frame: pl.DataFrame, column: str = "user_id") -> pl.DataFrame:
        """The rows whose id lies between; null ids and ids of another type stay, for whoever checks them."""
        if self == EVERYBODY:
            return frame
        kind, text = frame.schema[column], isinstance(self.high if self.low is None else self.low, str)
        if kind.is_numeric() if text else not kind.is_integer():
            return frame
        ids = pl.col(column).cast(pl.String) if text else pl.col(column)
        lower = pl.lit(value=True) if self.low is None else ids >= self.low
        return frame.filter((lower if self.high is None else lower & (ids < self.high)).fill_null(value=True))

    def may_hold(self, least: Any, most: Any) -> bool:
        """Whether ids from `least` to `most` can lie between; ids of another type can, which is found out later."""
        if any(bound is not None and type(bound) is not type(least) for bound in (self.low, self.high)):
            return True
        return (self.high is None or least < self.high) and (self.low is None or most >= self.low)


EVERYBODY = Between()


def batches(
    paths: Sequence[Path], columns: Sequence[str] | None, *, rows: int = _BATCH_ROWS, between: Between = EVERYBODY
) -> Iterator[pl.DataFrame]:
    """The rows of some parquet files, at most `rows` at a time; `columns` None means all.

    Row groups that by their statistics hold no user_id between are not read; whoever asks drops the other rows.

    Raises:
        DataContractError: a file is missing, is not parquet, is damaged, or has no such column.
    """
    for path in parquet_files(paths):
        try:
            with pq.ParquetFile(path) as file:
                require_columns(file.schema_arrow.names, columns or (), path)
                groups = _row_groups(file, between)
                if not groups and file.metadata.num_row_groups:
                    continue
                for batch in file.iter_batches(batch_size=rows, row_groups=groups, columns=None if columns is None else list(columns)):
                    yield _frame(batch)
        except _UNREADABLE as error:
            raise unreadable(path, error) from None


def _row_groups(file: pq.ParquetFile, between: Between) -> list[int]:
    names, metadata = file.schema_arrow.names, file.metadata
    everything = list(range(metadata.num_row_groups))
    # Columns of numbers and text only: a nested column has several places in the statistics.
    if between == EVERYBODY or "user_id" not in names or metadata.num_columns != len(names):
        return everything
    return [number for number in everything if _may_hold(metadata.row_group(number).column(names.index("user_id")), between)]


def _may_hold(column: Any, between: Between) -> bool:
    statistics = column.statistics if column.is_stats_set else None
    return statistics is None or not statistics.has_min_max or between.may_hold(statistics.min, statistics.max)


def read_table(paths: Sequence[Path], columns: Sequence[str] | None, between: Between = EVERYBODY) -> pl.DataFrame:
    """The rows of some parquet files as one table; errors as in `batches`, and when the files have different types."""
    found = (between.keep(part) for part in batches(paths, columns, between=between))
    parts = [part for part in found if not part.is_empty()] or [empty_table(parquet_files(paths)[0])]
    _require_alike(parts, paths[0])
    return pl.concat(parts, how="vertical_relaxed")


def _require_alike(parts: Sequence[pl.DataFrame], where: object) -> None:
    """Numbers in one file and text in another would be joined as text, and 7 would meet "7"."""
    for name, first in parts[0].schema.items():
        others = {part.schema.get(name) for part in parts if part.schema.get(name) != first}
        if any(other is None or not (other.is_numeric() and first.is_numeric()) for other in others):
            raise DataContractError(f"column '{name}' is {first} in one file and {others.pop()} in another", where=where)


def empty_table(path: Path) -> pl.DataFrame:
    """The columns of a parquet file without its rows. Raises DataContractError when it cannot be read."""
    try:
        return _frame(pq.read_schema(path).empty_table())
    except _UNREADABLE as error:
        raise unreadable(path, error) from None


def _frame(table: pa.RecordBatch | pa.Table) -> pl.DataFrame:
    """Damaged text makes polars panic: values are checked first, and the metadata, which nobody reads, is left behind."""
    table.validate(full=True)
    return pl.DataFrame(pl.from_arrow(pa.table(table.columns, names=table.schema.names)))


def unreadable(path: Path, error: Exception) -> DataContractError:
    """The one line for a file that arrow could not read."""
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return DataContractError(f"cannot be read as parquet: {first}", where=path, remedy="write the file again")


def require_columns(found: Sequence[str], needed: Sequence[str], where: object) -> None:
    """Raise DataContractError when a needed column is absent."""
    missing = [name for name in needed if name not in found]
    if missing:
        raise DataContractError(
            f"has no column '{missing[0]}'", where=where, expected=f"columns {', '.join(needed)}; it has {', '.join(found)}"
        )


def as_ids(column: pl.Series, where: object) -> pl.Series:
    """Ids as Int64 or String.

    Raises:
        DataContractError: an id is null, beyond 63 bits, or neither a whole number nor text.
    """
    if column.null_count():
        raise DataContractError(f"column '{column.name}' has {column.null_count()} null ids", where=where)
    if column.dtype in (pl.String, pl.Categorical, pl.Enum):
        return column.cast(pl.String)
    if not column.dtype.is_integer():
        raise DataContractError(f"column '{column.name}' is {column.dtype}", where=where, expected="whole numbers or text")
    try:
        return column.cast(pl.Int64)
    except pl.exceptions.InvalidOperationError:
        raise DataContractError(f"column '{column.name}' has ids beyond 63 bits", where=where, remedy="store them as text") from None


def require_scores(column: pl.Series, where: object) -> None:
    """Raise DataContractError for scores that are no numbers, null or NaN, which would sort to either end."""
    if not column.dtype.is_numeric():
        raise DataContractError(f"column 'score' is {column.dtype}", where=where, expected="numbers")
    if column.null_count() or (column.dtype.is_float() and column.is_nan().any()):
        raise DataContractError("column 'score' has null or NaN", where=where)


def require_ranks(column: pl.Series, where: object) -> None:
    """Raise DataContractError for ranks that are no whole numbers from 1."""
    if not column.dtype.is_integer() or column.null_count():
        raise DataContractError(f"column 'rank' is {column.dtype} with {column.null_count()} nulls", where=where, expected="whole numbers")
    if len(column) and (least := int(column.min())) < 1:  # type: ignore[arg-type]
        raise DataContractError(f"column 'rank' has {least}", where=where, expected="ranks from 1")


class FrameWriter:
    """Writes tables of one schema one after the other to a parquet file, which only then is whole; for use with `with`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pq.ParquetWriter | None = None

    def write(self, frame: pl.DataFrame) -> None:
        """Add the rows of a table."""
        table = frame.to_arrow()
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema, compression="zstd")
        self._writer.write_table(table)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()
