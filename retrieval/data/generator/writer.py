"""Parquet files of bounded size, written as the rows come."""

from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq


class PartWriter:
    """Writes tables into `<name>-00000<suffix>`, `-00001` ...; with no limit, into one file `<name><suffix>`.

    A part is closed once it holds `most_rows` rows, so which rows share a part follows from the tables alone.
    """

    def __init__(self, folder: Path, name: str, most_rows: int | None = None) -> None:
        self.files: list[str] = []
        self.rows = 0
        self._folder, self._name, self._most_rows = folder, name, most_rows
        self._writer: pq.ParquetWriter | None = None
        self._rows_in_part = 0

    def write(self, table: pa.Table) -> None:
        """Append a table as one row group."""
        if self._writer is None:
            self._writer = self._open(table.schema)
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        self.rows += table.num_rows
        self._rows_in_part += table.num_rows
        if self._most_rows is not None and self._rows_in_part >= self._most_rows:
            self.close()

    def _open(self, schema: pa.Schema) -> pq.ParquetWriter:
        number = "" if self._most_rows is None else f"-{len(self.files):05d}"
        self.files.append(f"{self._name}{number}.parquet")
        path = self._folder / self.files[-1]
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without the arrow schema a dictionary column reads back as plain text, in every reader.
        return pq.ParquetWriter(path, schema, compression="zstd", compression_level=1, store_schema=False)

    def close(self) -> None:
        """End the part; the next table begins another."""
        if self._writer is not None:
            self._writer.close()
        self._writer, self._rows_in_part = None, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
