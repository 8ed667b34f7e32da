"""The real data sets, against the counts that their sources state."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from retrieval.core.artifacts import Artifact
from retrieval.data.dataset import Dataset

pytestmark = pytest.mark.realdata
Bench = Callable[..., Artifact]


def real(bench: Bench, folder: Path, split: str, *, source: dict[str, Any] | None = None, **items: str) -> tuple[Artifact, Dataset]:
    artifact = bench(
        str(folder / "interactions.parquet"),
        split={"protocol": split},
        source=source or {"order": "order"},
        items={"path": str(folder / "items.parquet")} | (items or {"title": "title", "categories": "categories"}),
    )
    return artifact, Dataset.open(artifact)


def test_ml_100k(bench: Bench, real_data: Path) -> None:
    artifact, dataset = real(bench, real_data / "ml-100k", "leave-last-out")
    assert (dataset.sequences.n_users, dataset.catalog.n_items, dataset.sequences.n_events) == (943, 1682, 100_000)
    assert artifact.summary["quarantine"] == {}
    assert artifact.summary["user_events"]["median"] in (64, 65)
    assert artifact.summary["time"] == {"unit": "seconds", "first": 874_724_710, "last": 893_286_638, "read_as": "seconds"}
    log = pl.read_parquet(real_data / "ml-100k" / "interactions.parquet").sort("user_id", "timestamp", "order")
    assert dataset.catalog.item_ids.gather(np.asarray(dataset.sequences.items)).to_list() == log["item_id"].to_list()


def test_ml_1m_by_order(bench: Bench, real_data: Path) -> None:
    artifact, dataset = real(bench, real_data / "ml-1m", "comirec", source={"time": "order"})
    assert (dataset.sequences.n_users, dataset.catalog.n_items, dataset.sequences.n_events) == (6040, 3416, 999_611)
    assert artifact.summary["time"]["unit"] == "order"
    split = artifact.summary["split"]
    assert (split["train_users"], split["valid_users"], split["test_users"]) == (4832, 604, 604)
    assert len(dataset.catalog.category_names) == 18


def test_movietweetings(bench: Bench, real_data: Path) -> None:
    artifact, dataset = real(bench, real_data / "movietweetings-100k", "leave-last-out")
    assert (dataset.sequences.n_users, dataset.catalog.n_items, dataset.sequences.n_events) == (16_554, 10_506, 100_000)
    assert int((dataset.sequences.lengths >= 5).sum()) == 4692
    assert artifact.summary["categories"] == 25


def test_globo_news_by_time(bench: Bench, real_data: Path) -> None:
    artifact = bench(
        str(real_data / "globo-news" / "interactions.parquet"),
        source={"order": "order"},
        items={"path": str(real_data / "globo-news" / "items.parquet"), "categories": "category_id"},
        split={"protocol": "global-time", "valid_from": "2017-10-15T00:00:00", "test_from": "2017-10-16T00:00:00"},
    )
    dataset = Dataset.open(artifact)
    assert (dataset.sequences.n_users, dataset.catalog.n_items, dataset.sequences.n_events) == (322_897, 46_033, 2_988_181)
    assert artifact.summary["categories"] == 199
    assert artifact.summary["items_without_category"] == 3551
    log = pl.read_parquet(real_data / "globo-news" / "interactions.parquet", columns=["item_id", "timestamp"])
    before = log.filter(pl.from_epoch("timestamp") < pl.datetime(2017, 10, 15))
    assert artifact.summary["split"]["train_events"] == before.height
    truth = pl.read_parquet(artifact.file("truth.parquet"))
    assert truth.height > 0
    assert truth.join(before, on="item_id", how="anti").is_empty()
