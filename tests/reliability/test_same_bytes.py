"""Lists have the same bytes for three batch sizes, and for one thread and two."""

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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Histories of very different lengths, and a trained model."""
    folder, random = tmp_path_factory.mktemp("same"), np.random.default_rng(2)
    owner = np.repeat(np.arange(USERS), random.integers(3, 24, USERS))
    log = {"user_id": owner, "item_id": random.integers(ITEMS, size=len(owner)), "timestamp": np.arange(len(owner))}
    pl.DataFrame(log).write_parquet(folder / "log.parquet")
    _ = open_run(recipe_of(folder), folder / "workspace").vectors
    return folder


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
