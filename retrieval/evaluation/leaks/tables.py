"""Evidence from anybody's tables: what was trained on, what is asked for, what was seen, which lists were made."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from retrieval.core.errors import DataContractError
from retrieval.data.catalog import rows_of
from retrieval.data.splits import TimeCuts
from retrieval.data.times import ticks
from retrieval.evaluation.leaks.evidence import Evidence, Part, Popularity, Segments
from retrieval.evaluation.tables import as_ids, empty_table, parquet_files, read_table, require_columns

_EVENT = ("user_id", "item_id", "timestamp")


@dataclass(frozen=True)
class LeakTables:
    """Parquet files (or folders of them).

    train: user_id, item_id, timestamp. truth: user_id, item_id, perhaps timestamp and split. history: as
    train, what users are seen with; training events of theirs without it. candidates: user_id, item_id. items: item_id and
    columns of numbers or times; `events` is taken for a popularity. cut: the first moment that nothing is trained on: a number
    in the unit of the timestamps (seconds for datetimes), or a datetime. users_apart: users of the truth may not be trained on.
    sees_window: users may be seen with what they did after the cut and before their target; None: where the truth has moments.
    """

    train: Path
    truth: Path
    history: Path | None = None
    candidates: Path | None = None
    items: Path | None = None
    cut: int | dt.datetime | None = None
    split: str = "test"
    users_apart: bool = False
    sees_window: bool | None = None


def evidence_of_tables(tables: LeakTables) -> Evidence:
    """Read the tables into memory, all but the candidates.

    Raises:
        DataContractError: a file is damaged, lacks a column, or has ids or times that are none.
    """
    train, truth = _events(tables.train), _truth(tables)
    history = train if tables.history is None else _events(tables.history)
    timed = "timestamp" in truth.columns
    per_second = ticks(train["timestamp"].to_numpy())
    cut = _cut(tables, per_second)
    if not timed:
        # A pair without a moment belongs to the window, also where the log ends long before the cut.
        truth = truth.with_columns(timestamp=pl.lit(max(_newest(train, history) + 1, cut or 0), pl.Int64))
    items = _items(tables.items, truth["item_id"].dtype)
    frames = {tables.train: train, tables.history or tables.train: history, tables.truth: truth}
    _require_alike(frames)
    log = pl.concat([frame.select(_EVENT) for frame in frames.values()]).unique()
    users, known = log["user_id"].unique().sort(), pl.concat([log["item_id"], items["item_id"]]).unique().sort()
    cuts = None if cut is None else TimeCuts(cut, cut, max(_newest(truth), cut) + 1)
    placed = [_segments(frame, users, known) for frame in (log, train, history, truth)]
    fields = pl.DataFrame({"item_id": known}).join(items, on="item_id", how="left", maintain_order="left")
    return Evidence(
        users=users,
        items=known,
        log=placed[0],
        training=placed[1],
        parts={"test": Part(history=placed[2], targets=placed[3])},
        cuts=cuts,
        users_apart=tables.users_apart,
        in_seconds=per_second > 0,
        sees_window=timed if tables.sees_window is None else tables.sees_window,
        timed=timed,
        popularity={"column events of items": Popularity(fields["events"].fill_null(0).to_numpy())} if "events" in fields.columns else {},
        fields=fields.select(pl.selectors.numeric().exclude("item_id", "events").name.prefix("field_")),
        candidates=() if tables.candidates is None else parquet_files([tables.candidates]),
    )


def _events(path: Path) -> pl.DataFrame:
    require_columns(empty_table(parquet_files([path])[0]).columns, _EVENT, path)
    return _checked(read_table([path], _EVENT), path)


def _truth(tables: LeakTables) -> pl.DataFrame:
    names = empty_table(parquet_files([tables.truth])[0]).columns
    frame = read_table([tables.truth], [name for name in (*_EVENT, "split") if name in names])
    require_columns(frame.columns, _EVENT[:2], tables.truth)
    if "split" in frame.columns:
        frame = frame.filter(pl.col("split").cast(pl.String) == tables.split).drop("split")
    if frame.is_empty():
        raise DataContractError("has no rows, so there is nothing to check", where=tables.truth)
    return _checked(frame, tables.truth)


def _checked(frame: pl.DataFrame, where: Path) -> pl.DataFrame:
    frame = frame.with_columns(as_ids(frame["user_id"], where), as_ids(frame["item_id"], where))
    if "timestamp" not in frame.columns:
        return frame
    times = frame["timestamp"]
    if times.dtype.is_temporal():
        times = times.cast(pl.Datetime("us")).dt.epoch("s")
    if not times.dtype.is_numeric() or times.null_count():
        raise DataContractError(
            f"column 'timestamp' is {times.dtype} with {times.null_count()} nulls", where=where, expected="numbers or datetimes"
        )
    return frame.with_columns(times.cast(pl.Int64).alias("timestamp"))


def _require_alike(frames: Mapping[Path, pl.DataFrame]) -> None:
    for name in ("user_id", "item_id"):
        dtypes = {frame[name].dtype: path for path, frame in frames.items()}
        if len(dtypes) > 1:
            found, expected = list(dtypes)[:2]
            raise DataContractError(f"column '{name}' is {found}", where=dtypes[found], expected=f"{expected}, as in {dtypes[expected]}")


def _cut(tables: LeakTables, per_second: int) -> int | None:
    """The cut in the unit of the timestamps. Raises DataContractError for a date beside timestamps that are no dates."""
    if not isinstance(tables.cut, dt.datetime):
        return tables.cut
    if not per_second:
        what, expected = f"the cut is {tables.cut:%Y-%m-%d}, but the timestamps are too small for moments since 1970", "a cut in their unit"
        raise DataContractError(what, where=tables.train, expected=expected)
    moment = tables.cut if tables.cut.tzinfo else tables.cut.replace(tzinfo=dt.UTC)
    return round(moment.timestamp() * per_second)


def _items(path: Path | None, dtype: pl.DataType) -> pl.DataFrame:
    if path is None:
        return pl.DataFrame(schema={"item_id": dtype})
    frame = read_table([path], None)
    require_columns(frame.columns, ("item_id",), path)
    if "events" in frame.columns and not frame["events"].dtype.is_numeric():
        raise DataContractError(f"column 'events' is {frame['events'].dtype}", where=path, expected="numbers of events")
    frame = frame.with_columns(as_ids(frame["item_id"], path).cast(dtype, strict=False))
    times = (pl.selectors.date() | pl.selectors.datetime()).cast(pl.Datetime("us")).dt.epoch("s")
    return frame.with_columns(times).drop_nulls("item_id").unique("item_id", keep="first", maintain_order=True)


def _newest(*frames: pl.DataFrame) -> int:
    return max(int(frame["timestamp"].max() or 0) for frame in frames)  # type: ignore[arg-type]


def _segments(frame: pl.DataFrame, users: pl.Series, items: pl.Series) -> Segments:
    columns = {"user": rows_of(users, frame["user_id"]), "item": rows_of(items, frame["item_id"]), "time": frame["timestamp"]}
    rows = pl.DataFrame(columns).sort("user", "time", maintain_order=True)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows["user"].to_numpy(), minlength=len(users)))])
    return Segments(rows["item"].to_numpy(), rows["time"].to_numpy(), offsets[:-1], offsets[1:])
