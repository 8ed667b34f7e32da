"""Rows that broke the contract: written beside the dataset, counted per rule, too many of them stop the run."""

import shutil
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.core.errors import DataContractError

QUARANTINE = "quarantine.parquet"
_SCHEMA = pa.schema([("source", pa.string()), ("row", pa.int64()), ("rule", pa.string()), ("values", pa.string())])
_HINTS = {
    "late_time": "late times are often milliseconds read as seconds: set time_unit",
    "early_time": "early times are often seconds read as milliseconds: set time_unit",
    "unreadable_time": "set time_unit, or write times as numbers or as 2024-05-01T12:00:00Z",
    "unknown_item": "add the items to the items table, or set data.contract.unknown_items to 'keep'",
    "duplicate": "set data.contract.duplicates to 'drop' or 'keep' where repeats are expected",
    "out_of_range_user": "ids above 2^63-1 must be written as text",
    "out_of_range_item": "ids above 2^63-1 must be written as text",
}


class Quarantine:
    """The quarantine.parquet of a dataset, written as the rows are found; a context manager.

    Args:
        path: the file: source, row (position in the source's files, one after the other), rule, values (JSON of the
            declared columns; numbers with a fraction are text there, because JSON has no NaN).
        rescue: where the file is copied when the run stops because of it.
    """

    def __init__(self, path: Path, rescue: Path | None = None) -> None:
        self.path, self.rescue = path, rescue
        self.counts: dict[str, Counter[str]] = {}
        self._writer = pq.ParquetWriter(path, _SCHEMA, compression="zstd")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._writer.close()

    def add(self, source: str, rows: pl.Series, rules: pl.Series, values: pl.DataFrame) -> None:
        """Record rows; the three are of one length."""
        if rows.is_empty():
            return
        frame = pl.DataFrame({"row": rows.cast(pl.Int64), "rule": rules.cast(pl.String), "values": as_json(values)})
        counts = frame["rule"].value_counts()
        self.counts.setdefault(source, Counter()).update(dict(zip(counts["rule"], counts["count"], strict=True)))
        self._writer.write_table(frame.select(source=pl.lit(source), row="row", rule="rule", values="values").to_arrow().cast(_SCHEMA))

    def count(self, source: str) -> int:
        """Rows of a source so far."""
        return self.counts.get(source, Counter()).total()

    def require_within(self, source: str, rows: int, max_bad_share: float, *, forgiven: str = "") -> None:
        """Stop when too many of a source's rows are here; `forgiven` is a rule that does not count.

        Raises:
            DataContractError: more than `max_bad_share` of the rows; the file is copied to `rescue` first.
        """
        counts = Counter({rule: count for rule, count in self.counts.get(source, Counter()).items() if rule != forgiven})
        if counts.total() <= max_bad_share * rows:
            return
        self._writer.close()
        worst = counts.most_common()
        raise DataContractError(
            f"{counts.total()} of {rows} rows break the contract ({', '.join(f'{rule} {count}' for rule, count in worst)})",
            where=f"data.{source}",
            expected=f"at most {max_bad_share:.3g} of them (data.contract.max_bad_share)",
            remedy="; ".join(filter(None, [_HINTS.get(worst[0][0], ""), self._rescued()])),
        )

    def _rescued(self) -> str:
        if self.rescue is None:
            return ""
        self.rescue.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.path, self.rescue)
        return f"the rows are in {self.rescue}"


def as_json(values: pl.DataFrame) -> pl.Series:
    """One JSON object a row."""
    readable = values.with_columns(pl.selectors.float().cast(pl.String), pl.selectors.categorical().cast(pl.String))
    return readable.select(pl.struct(pl.all()).struct.json_encode()).to_series()
