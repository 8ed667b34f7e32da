"""Reading other people's parquet: by arrow, in batches, with one-line errors.

Arrow and not polars, because a damaged file makes polars panic with an exception that no handler expects.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

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


def batches(paths: Sequence[Path], columns: Sequence[str] | None, *, rows: int = _BATCH_ROWS) -> Iterator[pl.DataFrame]:
    """The rows of some parquet files, at most `rows` at a time; `columns` None means all.

    Raises:
        DataContractError: a file is missing, is not parquet, is damaged, or has no such column.
    """
    for path in parquet_files(paths):
        try:
            with pq.ParquetFile(path) as file:
                require_columns(file.schema_arrow.names, columns or (), path)
                for batch in file.iter_batches(batch_size=rows, columns=None if columns is None else list(columns)):
                    yield _frame(batch)
        except _UNREADABLE as error:
            raise unreadable(path, error) from None


def read_table(paths: Sequence[Path], columns: Sequence[str] | None) -> pl.DataFrame:
    """All rows of some parquet files as one table; errors as in `batches`, and when the files have different types."""
    parts = [part for part in batches(paths, columns) if not part.is_empty()] or [empty_table(parquet_files(paths)[0])]
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
