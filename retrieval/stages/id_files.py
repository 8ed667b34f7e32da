"""Files of ids: one a line, or a column in CSV or parquet."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrieval.core.errors import DataContractError
from retrieval.data.catalog import rows_of
from retrieval.evaluation.tables import as_ids, read_table


def read_ids(path: Path, column: str) -> pl.Series:
    """The ids in a file, Int64 or String: of a column in .csv and .parquet, else a line each, empty lines left out.

    Lines keep their spaces, which may be a part of a text id.

    Raises:
        DataContractError: the file is damaged or has no such column, or an id is null.
    """
    if path.suffix == ".parquet":
        # Not by polars: a damaged file makes it panic.
        return as_ids(read_table([path], (column,))[column], path)
    read: Callable[[Path, str], pl.Series] = _of_csv if path.suffix == ".csv" else _of_lines
    try:
        return read(path, column)
    except (OSError, UnicodeDecodeError, pl.exceptions.PolarsError) as error:
        reason = f"is not UTF-8 text: {error.reason}" if isinstance(error, UnicodeDecodeError) else str(error).splitlines()[0]
        expected = f"one id a line, or a column {column}"
        raise DataContractError(f"cannot be read: {reason}", where=path, expected=expected) from None


def rows_in(path: Path, column: str, known: pl.Series) -> NDArray[np.int64]:
    """The position in `known` of every id in a file, in its order; -1 where it is not there.

    Raises:
        DataContractError: as for `read_ids`.
    """
    ids = read_ids(path, column)
    # Spaces may be a part of a text id, and never of a number.
    numbers = ids.dtype == pl.String and known.dtype != pl.String
    return rows_of(known, ids.str.strip_chars() if numbers else ids)


def _of_csv(path: Path, column: str) -> pl.Series:
    return as_ids(pl.read_csv(path, infer_schema=False)[column], path)


def _of_lines(path: Path, column: str) -> pl.Series:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return pl.Series(column, [line for line in lines if line.strip()], dtype=pl.String)
