"""Files of vectors that somebody else wrote: ids and vectors in parquet, or ids in parquet beside a matrix in npy."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from retrieval.core.artifacts import MANIFEST, Artifact, open_artifact, sha256_of
from retrieval.core.errors import DataContractError, UsageError
from retrieval.evaluation.tables import as_ids, batches, empty_table, parquet_files, read_table, unreadable

_BLOCK_ROWS = 1 << 16
_MOST_INTERESTS = 256
_EXPECTED = "float vectors of one length"


@dataclass(frozen=True)
class VectorFiles:
    """A table of vectors: a parquet file or a folder of them with a column `key`, perhaps `interest`, and `vector`.

    Where `vector` is missing, the vectors of part.parquet are the rows of part.npy.
    """

    path: Path
    key: str
    setting: str
    """Of the recipe, for messages."""

    @cached_property
    def files(self) -> list[Path]:
        """The parquet files. Raises UsageError when nothing is there."""
        if not self.path.exists():
            raise UsageError("no such file or folder", where=self.path, expected="vectors in parquet", remedy=f"check {self.setting}")
        return parquet_files([self.path])

    def fingerprint(self) -> dict[str, str]:
        """The sha256 of every file by name.

        Raises:
            IntegrityError: they were exported with a manifest, and a file is not what the manifest says.
        """
        export = _export_around(self.files[0])
        return {f"{self.key}/{file.name}": _sha256(file, export) for file in [*self.files, *self._matrices]}

    def keys(self) -> pl.DataFrame:
        """Columns `key` (Int64 or String) and interest (Int32), of every row of all files.

        A table without a column interest has one vector an id.

        Raises:
            DataContractError: a file is damaged, or ids or interests are not what they should be.
        """
        has_interest = "interest" in empty_table(self.files[0]).columns
        table = read_table(self.files, (self.key, "interest") if has_interest else (self.key,))
        interest = _interests(table["interest"], self.path) if has_interest else pl.zeros(table.height, pl.Int32, eager=True)
        return pl.DataFrame({self.key: as_ids(table[self.key], self.path), "interest": interest})

    @cached_property
    def dimension(self) -> int:
        """Of the vectors. Raises DataContractError when there is none."""
        block = next(self.blocks(), None)
        if block is None:
            raise DataContractError("holds no vector", where=self.path, expected=_EXPECTED)
        return int(block.shape[1])

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """The vectors in the order of `keys`, float32 [n,D], a bounded number at a time and at least one.

        Raises:
            DataContractError: a file is damaged, vectors differ in length, or a number is missing or not finite.
        """
        first, dimension = 0, 0
        for file in self.files:
            for block in filter(len, self._blocks_of(file)):
                dimension = dimension or block.shape[1]
                if block.shape[1] != dimension:
                    raise DataContractError(f"vectors of {block.shape[1]} dimensions", where=file, expected=str(dimension))
                _require_finite(block, first, file)
                first += len(block)
                yield block

    def _blocks_of(self, file: Path) -> Iterator[NDArray[np.float32]]:
        if "vector" not in empty_table(file).columns:
            yield from _matrix_blocks(file, _rows(file))
            return
        yield from (_matrix(frame["vector"], file) for frame in batches([file], ("vector",), rows=_BLOCK_ROWS))

    @property
    def _matrices(self) -> list[Path]:
        beside = [file.with_suffix(".npy") for file in self.files]
        return [matrix for matrix in beside if matrix.is_file()]


def _export_around(file: Path) -> Artifact | None:
    folder = file.parent.parent
    return open_artifact(folder) if (folder / MANIFEST).is_file() else None


def _sha256(file: Path, export: Artifact | None) -> str:
    name = f"{file.parent.name}/{file.name}"
    if export is not None and name in export.manifest.files:
        export.file(name)
        return export.manifest.files[name].sha256
    return sha256_of(file)


def _interests(column: pl.Series, where: Path) -> pl.Series:
    if column.null_count() or not column.dtype.is_integer() or not column.is_between(0, _MOST_INTERESTS - 1).all():
        expected = f"whole numbers from 0 to {_MOST_INTERESTS - 1}"
        raise DataContractError("column 'interest' does not number a user's vectors", where=where, expected=expected)
    return column.cast(pl.Int32)


def _matrix(column: pl.Series, file: Path) -> NDArray[np.float32]:
    if isinstance(column.dtype, pl.List) and column.null_count() == 0:
        lengths = sorted(column.list.len().unique().to_list())
        if len(lengths) > 1:
            raise DataContractError(f"vectors of {lengths[0]} to {lengths[-1]} dimensions", where=file, expected=_EXPECTED)
        column = column.list.to_array(lengths[0] if lengths else 0)
    if not isinstance(column.dtype, pl.Array) or not column.dtype.inner.is_numeric() or column.null_count():
        missing = f" with {column.null_count()} nulls" if column.null_count() else ""
        raise DataContractError(f"column 'vector' is {column.dtype}{missing}", where=file, expected=_EXPECTED)
    values = column.explode(empty_as_null=False)
    if values.null_count():
        raise DataContractError(f"column 'vector' has {values.null_count()} missing numbers", where=file, expected=_EXPECTED)
    return _as_float32(values.to_numpy()).reshape(len(column), column.dtype.size)


def _matrix_blocks(file: Path, rows: int) -> Iterator[NDArray[np.float32]]:
    path = file.with_suffix(".npy")
    if not path.is_file():
        raise DataContractError("has no column 'vector'", where=file, expected=f"one, or {path.name} beside it")
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataContractError(f"is no readable matrix: {error}", where=path, remedy="write the file again") from None
    if matrix.ndim != 2 or len(matrix) != rows or matrix.dtype.kind != "f":
        raise DataContractError(f"holds {matrix.dtype}{list(matrix.shape)}", where=path, expected=f"{rows} rows of {_EXPECTED}")
    for first in range(0, rows, _BLOCK_ROWS):
        yield _as_float32(np.array(matrix[first : first + _BLOCK_ROWS]))


def _rows(file: Path) -> int:
    try:
        return int(pq.read_metadata(file).num_rows)
    except OSError as error:
        raise unreadable(file, error) from None


def _as_float32(values: NDArray[np.floating]) -> NDArray[np.float32]:
    # What float32 cannot hold becomes infinite, and is refused as that.
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _require_finite(block: NDArray[np.float32], first: int, file: Path) -> None:
    bad = ~np.isfinite(block).all(axis=1)
    if bad.any():
        what = f"{int(bad.sum())} vectors are not finite, the first in row {first + int(np.argmax(bad))}"
        raise DataContractError(what, where=file, expected="finite numbers that float32 can hold", remedy="write the file again")
