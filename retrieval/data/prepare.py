"""From a log to dataset/<id>/: catalog, users, sequences, split, truth, quarantine."""

import numpy as np
import polars as pl

from retrieval.core.artifacts import StagedArtifact
from retrieval.core.errors import DataContractError
from retrieval.data.catalog import Catalog, rows_of
from retrieval.data.sequences import SequenceDataset
from retrieval.data.settings import DataSettings, SplitSettings
from retrieval.data.splits import Part, Split, ground_truth, make_split, training_counts

_PARTS: tuple[Part, ...] = ("valid", "test")


def prepare(data: DataSettings, split: SplitSettings, staged: StagedArtifact) -> None:
    """Write every file of a dataset and fill `staged.summary`."""
    source = data.interactions
    columns = [source.user, source.item, source.time]
    events = pl.scan_parquet(source.path).select(columns).collect()
    events.columns = ["user", "item", "time"]
    if events.is_empty():
        raise DataContractError("the log is empty", where=source.path)
    events = events.sort("user", "time", maintain_order=True)
    items = _items(data, events)
    users = events.group_by("user").len("events").select(pl.col("user").alias("user_id"), pl.col("events").cast(pl.Int64)).sort("user_id")
    sequences = SequenceDataset(
        offsets=np.concatenate([[0], users["events"].cum_sum().to_numpy()]).astype(np.int64),
        items=rows_of(items["item_id"], events["item"]).astype(np.int32),
        times=events["time"].cast(pl.Int64).to_numpy(),
    )
    cut = make_split(split, sequences)
    counts = training_counts(cut, sequences, items.height)
    catalog = Catalog(items.with_columns(pl.Series("events", counts)).select("item_id", "title", "categories", "events"))
    for name in ("offsets", "items", "times"):
        np.save(staged.path(f"{name}.npy"), getattr(sequences, name))
    catalog.frame.write_parquet(staged.path("items.parquet"))
    users.write_parquet(staged.path("users.parquet"))
    cut.frame().write_parquet(staged.path("split.parquet"))
    _truth(cut, sequences, catalog, users).write_parquet(staged.path("truth.parquet"))
    staged.summary |= {
        "users": users.height,
        "items": catalog.n_items,
        "events": sequences.n_events,
        "catalog_fingerprint": catalog.fingerprint,
    }


def _items(data: DataSettings, events: pl.DataFrame) -> pl.DataFrame:
    ids = events.select(pl.col("item").unique().sort().alias("item_id"))
    source = data.items
    if not source.path:
        return ids.with_columns(title=pl.lit(None, pl.String), categories=pl.lit([], pl.List(pl.String)))
    title = pl.col(source.title) if source.title else pl.lit(None, pl.String)
    categories = pl.col(source.categories) if source.categories else pl.lit([], pl.List(pl.String))
    table = pl.read_parquet(source.path).select(
        pl.col(source.item).cast(ids["item_id"].dtype).alias("item_id"), title.alias("title"), categories.alias("categories")
    )
    return ids.join(table, on="item_id", how="left", maintain_order="left").with_columns(pl.col("categories").fill_null([]))


def _truth(cut: Split, sequences: SequenceDataset, catalog: Catalog, users: pl.DataFrame) -> pl.DataFrame:
    frames = []
    for part in _PARTS:
        user_rows, item_rows = ground_truth(cut, sequences, part)
        frames.append(
            pl.DataFrame({"user_id": users["user_id"][user_rows], "item_id": catalog.item_ids[item_rows]}).with_columns(split=pl.lit(part))
        )
    return pl.concat(frames)
