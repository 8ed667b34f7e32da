"""From a log to dataset/<id>/: catalog, users, sequences, split, truth, quarantine."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrieval.core.arrays import save_array
from retrieval.core.artifacts import StagedArtifact
from retrieval.core.errors import DataContractError
from retrieval.data.catalog import Catalog, rows_of
from retrieval.data.columns import Source, declared_source
from retrieval.data.contract import EventContract, event_columns, order_as_float, read_columns
from retrieval.data.entities import read_items, read_users
from retrieval.data.events import SortedEvents, duplicates, filter_rare, ranked, sort_events
from retrieval.data.fields.fit import FieldFit, RawEvents
from retrieval.data.fields.settings import AgeField, EntityField, TimeField, TimeUnit
from retrieval.data.files import BATCH_ROWS, find_inputs
from retrieval.data.ids import IdEncoder, IdKind, id_encoder, id_kind
from retrieval.data.interactions import Interactions, LogReader
from retrieval.data.quarantine import QUARANTINE, Quarantine
from retrieval.data.sequences import SequenceDataset
from retrieval.data.settings import DataSettings, SplitSettings
from retrieval.data.splits import PARTS, Split, ground_truth, make_split, training_counts
from retrieval.data.summary import dataset_summary, split_summary
from retrieval.data.times import MICROSECONDS, time_unit


def prepare(data: DataSettings, split: SplitSettings, staged: StagedArtifact, *, rescue: Path | None = None) -> None:
    """Write every file of a dataset and fill `staged.summary`.

    Memory: about 30 bytes an event, the ids, and one batch of rows.

    Args:
        data: the recipe's [data] table.
        split: the recipe's [split] table.
        staged: the dataset artifact being written.
        rescue: where quarantine.parquet is copied when too many rows break the contract, because a run that stops
            removes its staging directory.

    Raises:
        UsageError: a path or a column of the recipe does not exist.
        DataContractError: a file is damaged, the log is empty or filtered to nothing, or too many rows are bad.
    """
    sources = Sources.find(data)
    with Quarantine(staged.path(QUARANTINE), rescue) as quarantine:
        tables = Tables.read(data, sources, quarantine)
        events = _events(data, sources, tables, quarantine, staged.summary)
        staged.summary["quarantine"] = {source: dict(counts) for source, counts in quarantine.counts.items()}
    _write(data, split, tables, events, staged)


@dataclass(frozen=True)
class Sources:
    """The input tables of a recipe, their declared columns checked."""

    interactions: Source
    items: Source | None
    users: Source | None

    @classmethod
    def find(cls, data: DataSettings) -> "Sources":
        """Find the files and check the columns, before anything is read."""
        log, items, users = data.interactions, data.items, data.users
        log_columns = {name: getattr(log, name) for name in ("user", "item", "time", "order", "kind", "weight")} | read_columns(log)
        item_columns = {"item": items.item, "title": items.title, "categories": items.categories}
        return cls(
            declared_source("interactions", find_inputs(log.path, "data.interactions.path"), log_columns),
            _optional_source("items", items.path, item_columns | _columns_of(items.fields)),
            _optional_source("users", users.path, {"user": users.user} | _columns_of(users.fields)),
        )


def _columns_of(fields: Mapping[str, EntityField]) -> dict[str, str]:
    return {f"fields.{name}": field.column_of(name) for name, field in fields.items()}


def _optional_source(name: str, path: str, columns: dict[str, str]) -> Source | None:
    return declared_source(name, find_inputs(path, f"data.{name}.path"), columns) if path else None


@dataclass(frozen=True)
class Tables:
    """The tables of users and items (None without one), and the ids of everything met."""

    user_kind: IdKind
    item_kind: IdKind
    users: pl.DataFrame | None
    items: pl.DataFrame | None
    item_codes: IdEncoder
    """Knows the ids of the items table first: smaller codes are in the table."""

    @classmethod
    def read(cls, data: DataSettings, sources: Sources, quarantine: Quarantine) -> "Tables":
        """Decide what ids are, and read the two tables."""
        share, log = data.contract.max_bad_share, sources.interactions
        users = [(sources.users, data.users.user)] if sources.users else []
        items = [(sources.items, data.items.item)] if sources.items else []
        user_kind = id_kind([(log, data.interactions.user), *users], share)
        item_kind = id_kind([(log, data.interactions.item), *items], share)
        item_table = read_items(sources.items, data.items, item_kind, data.contract, quarantine) if sources.items else None
        user_table = read_users(sources.users, data.users, user_kind, data.contract, quarantine) if sources.users else None
        codes = id_encoder(item_kind)
        if item_table is not None:
            codes.encode(item_table["id"])
        return cls(user_kind, item_kind, user_table, item_table, codes)


def _events(data: DataSettings, sources: Sources, tables: Tables, quarantine: Quarantine, summary: dict[str, Any]) -> SortedEvents:
    log, users = data.interactions, id_encoder(tables.user_kind)
    unit = time_unit(sources.interactions, log.time, log.time_unit)
    _require_one_clock(data, unit, sources.interactions.where)
    contract = EventContract(log, data.contract, tables.user_kind, tables.item_kind, unit, order_as_float(sources.interactions, log.order))
    known = len(tables.item_codes) if tables.items is not None and data.contract.unknown_items == "quarantine" else None
    read = LogReader(sources.interactions, contract, data.filters, users, tables.item_codes, quarantine, known).read()
    quarantine.require_within("interactions", read.rows, data.contract.max_bad_share)
    events = sort_events(read, users)
    if data.contract.duplicates != "keep":
        _isolate_duplicates(data, tables, events, read, quarantine)
    rare = filter_rare(events, data.filters, len(tables.item_codes))
    if len(events.places) == 0:
        kinds = f"; kinds in the log: {', '.join(sorted(read.kinds))}" if read.kinds else ""
        raise DataContractError(
            f"no event is left of {read.rows}",
            where=sources.interactions.where,
            expected="at least one",
            remedy=f"loosen data.filters{kinds}",
        )
    if unit != "order":
        np.floor_divide(events.columns["time"], MICROSECONDS, out=events.columns["time"])
    events.names = read.field_names
    if data.keep_users_without_events and tables.users is not None:
        _join_users(events, tables.users["id"])
    summary |= {
        "rows": read.rows,
        "filtered": {"kind": read.other_kinds, "later": read.later, "rare": rare},
        "time_unit": unit,
        "kinds": read.kinds,
    }
    return events


def _require_one_clock(data: DataSettings, unit: TimeUnit, where: Path) -> None:
    """An age is the difference between two times of one unit."""
    ages = {name: field.of for name, field in data.interactions.fields.items() if isinstance(field, AgeField)}
    for name, of in ages.items():
        own = data.items.fields[of]
        if isinstance(own, TimeField) and (own.unit == "order") != (unit == "order"):
            counts, has = ("the log", f"'{of}'") if unit == "order" else (f"'{of}'", "the log")
            raise DataContractError(
                f"field '{name}' is the time from '{of}' to the event, but {counts} counts steps of an order and {has} has moments",
                where=where,
                expected="one clock",
                remedy=f"set data.interactions.time_unit or data.items.fields.{of}.unit, or leave '{name}' out",
            )


def _join_users(events: SortedEvents, table: pl.Series) -> None:
    """Users who have no event get a row, too."""
    every = pl.concat([events.users, table.alias(events.users.name)]).unique().sort()
    lengths = np.zeros(len(every), dtype=np.int64)
    lengths[rows_of(every, events.users)] = np.diff(events.offsets)
    events.users, events.offsets = every, np.concatenate([[0], np.cumsum(lengths)])


def _isolate_duplicates(data: DataSettings, tables: Tables, events: SortedEvents, read: Interactions, quarantine: Quarantine) -> None:
    keep = duplicates(events)
    repeated, log = np.flatnonzero(~keep), data.interactions
    ids = tables.item_codes.ids()
    for first in range(0, len(repeated), BATCH_ROWS):
        some = repeated[first : first + BATCH_ROWS]
        values = pl.DataFrame(
            {
                log.user: events.users.gather(events.owners(some)),
                log.item: ids.gather(events.columns["item"][some]),
                log.time: events.columns["time"][some],
            }
        )
        rows = pl.Series(read.input_rows(events.places[some].astype(np.int64)))
        quarantine.add("interactions", rows, pl.repeat("duplicate", len(some), eager=True), values)
    events.select(keep)
    forgiven = "duplicate" if data.contract.duplicates == "drop" else ""
    quarantine.require_within("interactions", read.rows, data.contract.max_bad_share, forgiven=forgiven)


def _write(data: DataSettings, settings: SplitSettings, tables: Tables, events: SortedEvents, staged: StagedArtifact) -> None:
    items, rows = _catalog_rows(tables, events, keep_all=data.keep_items_without_events)
    sequences = _write_sequences(events, rows, data, staged)
    split = make_split(settings, sequences)
    counts = training_counts(split, sequences, items.height)
    catalog = Catalog(
        items.with_columns(pl.Series("events", counts)).select("item_id", "title", "categories", "events", pl.col("^field_.*$"))
    )
    users = _users(tables, events, sequences)
    truth = _truth(settings, split, sequences, catalog, users)
    catalog.frame.write_parquet(staged.path("items.parquet"))
    users.write_parquet(staged.path("users.parquet"))
    split.frame().write_parquet(staged.path("split.parquet"))
    truth.write_parquet(staged.path("truth.parquet"))
    if data.items.fields or data.users.fields or data.interactions.fields:
        raw = RawEvents({name: events.columns.pop(f"field_{name}") for name in event_columns(data.interactions)}, events.names)
        fields, staged.summary["fields"] = FieldFit(data, sequences, split).fit(catalog.frame, users, raw)
        fields.write(staged)
    staged.summary |= dataset_summary(catalog, sequences, staged.summary.pop("time_unit"))
    in_seconds = staged.summary["time"]["unit"] == "seconds"
    staged.summary["split"] = split_summary(settings, split, sequences, truth, items.height, in_seconds=in_seconds)


def _catalog_rows(tables: Tables, events: SortedEvents, *, keep_all: bool) -> tuple[pl.DataFrame, NDArray[np.int32]]:
    """The items of the catalog in order of id, and the row of every item code (-1: not in it)."""
    ids, rank = ranked(tables.item_codes.ids())
    kept = np.zeros(len(rank), dtype=np.bool_)
    kept[rank[events.columns["item"]]] = True
    if keep_all and tables.items is not None:
        kept[rank[: tables.items.height]] = True
    row_of_rank = np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32)
    found = pl.DataFrame({"item_id": ids.filter(pl.Series(kept))})
    if tables.items is None:
        found = found.with_columns(title=pl.lit(None, pl.String), categories=pl.lit([], pl.List(pl.String)))
    else:
        found = found.join(tables.items, left_on="item_id", right_on="id", how="left", maintain_order="left")
    return found.with_columns(pl.col("categories").fill_null([])), row_of_rank[rank]


def _write_sequences(events: SortedEvents, rows: NDArray[np.int32], data: DataSettings, staged: StagedArtifact) -> SequenceDataset:
    arrays = {"offsets": events.offsets, "items": rows[events.columns.pop("item")], "times": events.columns.pop("time")}
    weights = _weights(events, data, staged.summary["kinds"])
    arrays |= {"weights": weights} if weights is not None else {}
    arrays |= {"kinds": events.columns.pop("kind")} if "kind" in events.columns else {}
    for name, array in arrays.items():
        save_array(staged.path(f"{name}.npy"), array)
    return SequenceDataset(**arrays)


def _weights(events: SortedEvents, data: DataSettings, kinds: list[str]) -> NDArray[np.float32] | None:
    """The weight of every event times that of its kind, float32 [E]; None when all weigh 1."""
    weights: NDArray[np.float32] | None = events.columns.pop("weight", None)
    if not data.filters.kind_weights:
        return weights
    per_kind = np.array([data.filters.kind_weights.get(kind, 1.0) for kind in kinds], dtype=np.float32)
    factors: NDArray[np.float32] = per_kind[events.columns["kind"]]
    return factors if weights is None else weights * factors


def _users(tables: Tables, events: SortedEvents, sequences: SequenceDataset) -> pl.DataFrame:
    users = pl.DataFrame({"user_id": events.users, "events": sequences.lengths})
    if tables.users is None:
        return users
    return users.join(tables.users, left_on="user_id", right_on="id", how="left", maintain_order="left")


def _truth(settings: SplitSettings, split: Split, sequences: SequenceDataset, catalog: Catalog, users: pl.DataFrame) -> pl.DataFrame:
    known = catalog.events > 0 if settings.asks_for_known_items else None
    frames = []
    for part in PARTS:
        user_rows, item_rows = ground_truth(split, sequences, part, known)
        ids = {"user_id": users["user_id"].gather(user_rows), "item_id": catalog.item_ids.gather(item_rows)}
        frames.append(pl.DataFrame(ids).with_columns(split=pl.lit(part)))
    return pl.concat(frames)
