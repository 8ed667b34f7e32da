"""Nights on a log of ten days, in which sixty users walk round a ring of items, twice a day."""

import datetime as dt
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from retrieval.stages.nightly.night import run_night
from retrieval.stages.nightly.records import NightRecord
from retrieval.stages.nightly.request import Request

RECIPE = """
name = "walk"
[data]
name = "walk"
interactions = { path = "LOG" }
[split]
protocol = "global-time"
[model]
name = "comirec-sa"
dimension = 8
interests = 2
history = 8
[train]
steps = 6
examples = { batch_size = 8 }
loss = { negatives = 8 }
[recall]
n = 12
pool = 16
filter_seen = false
[evaluate]
cutoffs = [10]
primary = "recall@10"
baselines = []
frontier_builders = []
resamples = 50
[nightly]
report = false
[nightly.model]
max_loss = 1.0
max_decline = 1.0
visible_loss = 100.0
max_cosine = 1.0
min_effective_rank = 0.0
max_dead = 1.0
[nightly.lists]
max_slowdown = 1000.0
[machine]
threads = 1
device = "cpu"
"""
FIRST = dt.date(2024, 1, 1)


def log_of(days: int, users: int = 60) -> pl.DataFrame:
    """Two events of every user on every day, at hours that differ."""
    steps = pl.DataFrame({"user_id": range(users)}).join(pl.DataFrame({"step": range(2 * days)}), how="cross")
    start = int(dt.datetime.combine(FIRST, dt.time(), dt.UTC).timestamp())
    hour = 3_600 * (1 + (pl.col("user_id") + 12 * pl.col("step")) % 24)
    # Items of each day: new ones come in as days go by.
    item = (pl.col("user_id") + pl.col("step")) % (30 + pl.col("step") // 2)
    timestamp = start + 86_400 * (pl.col("step") // 2) + hour - 3_600 + pl.col("step") % 2
    return steps.select("user_id", item.alias("item_id"), timestamp.alias("timestamp")).sort("timestamp", "user_id")


class Nights:
    """Nights of a recipe in a folder; `run(day)` for the day of January 2024."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.workspace = folder, folder / "workspace"
        folder.mkdir(exist_ok=True)
        self.write(log_of(10))
        self.records: list[NightRecord] = []
        self.recipe = folder / "walk.toml"
        self.recipe.write_text(RECIPE.replace("LOG", str(folder / "log.parquet")))

    def write(self, log: pl.DataFrame) -> None:
        log.write_parquet(self.folder / "log.parquet")

    def request(self, day: int, *changes: str) -> Request:
        return Request(self.recipe, dt.date(2024, 1, day), self.workspace, changes)

    def run(self, day: int, *changes: str, **overrides: str) -> NightRecord:
        return run_night(self.request(day, *changes), overrides)

    def grow(self, *rows: tuple[int | None, int, int]) -> None:
        """Rows at the end of the log: user, item and day of January."""
        added = pl.DataFrame(list(rows), schema=["user_id", "item_id", "timestamp"], orient="row")
        noon = int(dt.datetime(2023, 12, 31, 12, tzinfo=dt.UTC).timestamp())
        log = pl.read_parquet(self.folder / "log.parquet")
        self.write(pl.concat([log, added.with_columns(pl.col("timestamp") * 86_400 + noon).cast(log.schema)]))

    def pointer(self) -> dict:
        return json.loads((self.workspace / "published/walk/current.json").read_text())


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    return Nights(tmp_path)


@pytest.fixture(scope="session")
def folder_of_nights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Nights]:
    return lambda: Nights(tmp_path_factory.mktemp("nights"))


@pytest.fixture(scope="session")
def three(folder_of_nights: Callable[[], Nights]) -> Nights:
    """Nights of the 5th, 6th and 7th."""
    nights = folder_of_nights()
    nights.records = [nights.run(day) for day in (5, 6, 7)]
    return nights


@pytest.fixture
def again(three: Nights, tmp_path: Path) -> Nights:
    """The same in a folder of its own, to be changed."""
    nights = Nights(tmp_path / "again")
    shutil.copytree(three.workspace, nights.workspace)
    return nights
