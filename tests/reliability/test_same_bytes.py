"""Lists have the same bytes for three batch sizes, and for one thread and two; ten times the users take no more memory."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from retrieval.core.artifacts import Workspace
from retrieval.core.settings import with_values
from retrieval.stages.audience import Scope
from retrieval.stages.ensure import Stages
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recipe import Recipe, parse_recipe
from retrieval.stages.run import open_run

USERS, ITEMS = 3_100, 400


def recipe_of(folder: Path, **changes: Any) -> Recipe:
    values = {
        "name": "same",
        "data": {"name": "log", "interactions": {"path": str(folder / "log.parquet"), "time_unit": "order"}},
        "split": {"protocol": "leave-last-out"},
        "model": {"name": "comirec-sa", "dimension": 16, "interests": 4, "history": 20},
        "train": {"steps": 3, "validate_every": 3, "loss": {"negatives": 16}},
        "recall": {"n": 10, "pool": 20},
        "index": {"device": "cpu"},
        "evaluate": {"cutoffs": [10], "primary": "recall@10"},
        "machine": {"threads": 1, "device": "cpu"},
    }
    return parse_recipe(with_values(values, changes, "test"), "same.toml")


def trained(folder: Path, users: int) -> Path:
    """A log with histories of very different lengths, and a model of it."""
    random = np.random.default_rng(2)
    owner = np.repeat(np.arange(users), random.integers(3, 24, users))
    log = {"user_id": owner, "item_id": random.integers(ITEMS, size=len(owner)), "timestamp": np.arange(len(owner))}
    pl.DataFrame(log).write_parquet(folder / "log.parquet")
    _ = open_run(recipe_of(folder), folder / "workspace").index
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("same"), USERS)


def lists(folder: Path, **changes: Any) -> dict[str, str]:
    pipeline = Pipeline(recipe_of(folder, **changes), Stages(Workspace(folder / "workspace")))
    found = pipeline.candidates(Scope(who="all"))
    return {name: record.sha256 for name, record in found.manifest.files.items()}


@pytest.mark.parametrize("factory", ["exact", "IVF8,Flat"])
def test_three_batch_sizes_and_two_threads_give_the_same_bytes(folder: Path, factory: str) -> None:
    index = {"index.factory": factory, "index.min_recall": 0.0}
    whole = lists(folder, **index)
    for size in (2048, 4096):
        assert lists(folder, **index, **{"recall.batch_users": size}) == whole, size
    workspace = Workspace(folder / "workspace")
    made = workspace.list("candidates")
    open_run(recipe_of(folder, **{"machine.threads": 2}), folder / "workspace")
    for path in made:
        workspace.remove("candidates", path.name)
    assert lists(folder, **index, **{"machine.threads": 2}) == whole
    open_run(recipe_of(folder), folder / "workspace")


def test_ten_times_the_users_take_no_more_memory(folder: Path, tmp_path: Path) -> None:
    """The peak of the stage, code and libraries included, within a tenth; a first run compiles what the others find."""
    peaks = []
    for place, batch in ((folder, 512), (folder, 256), (trained(tmp_path, 10 * USERS), 256)):
        pipeline = Pipeline(recipe_of(place, **{"recall.batch_users": batch}), Stages(Workspace(place / "workspace")))
        _ = pipeline.index, pipeline.users
        peaks.append(pipeline.candidates(Scope(who="all")).manifest.peak_memory_bytes)
    print(f"peaks of a recall of {USERS} and {10 * USERS} users: {peaks[1] / 1e6:.0f} and {peaks[2] / 1e6:.0f} MB")
    assert peaks[2] <= 1.1 * peaks[1]
