"""Lists whose scores are probabilities: the same lists, and the share of hits they promise."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from retrieval.core.errors import DataContractError, UsageError
from retrieval.stages.audience import Scope
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recipe import parse_recipe
from retrieval.stages.run import open_run

EVERYONE = Scope(who="all")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hundred users who walk around a ring: what comes next is easily guessed."""
    folder = tmp_path_factory.mktemp("calibrate")
    steps = pl.DataFrame({"user_id": range(200)}).join(pl.DataFrame({"time": range(12)}), how="cross")
    steps.with_columns(item_id=(pl.col("user_id") + pl.col("time")) % 50).write_parquet(folder / "log.parquet")
    return folder


def pipeline_of(folder: Path, model: dict[str, Any] | None = None, **recall: Any) -> Pipeline:
    interactions = {"path": str(folder / "log.parquet"), "user": "user_id", "item": "item_id", "time": "time", "time_unit": "order"}
    values = {
        "data": {"name": "ring", "interactions": interactions},
        "split": {"protocol": "leave-last-out"},
        "model": model or {"name": "gru4rec", "dimension": 16, "history": 6},
        "train": {"steps": 60, "examples": {"batch_size": 64}, "loss": {"negatives": 16}, "optimizer": {"learning_rate": 0.02}},
        "recall": {"n": 10, "pool": 20, "mix_in": {"below": 13, "share": 0.2}, **recall},
        "machine": {"threads": 1},
        "evaluate": {"cutoffs": [10], "primary": "recall@10", "baselines": []},
    }
    return open_run(parse_recipe(values, "ring.toml"), folder / "workspace")


def lists(pipeline: Pipeline, scope: Scope) -> pl.DataFrame:
    return pl.concat(pl.read_parquet(path) for path in pipeline.candidates(scope).files("part-"))


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_the_order_stays_and_scores_are_what_they_promise(folder: Path, method: str) -> None:
    raw, other = pipeline_of(folder), pipeline_of(folder, scores=method)
    plain, found = lists(raw, EVERYONE), lists(other, EVERYONE)
    assert raw.candidates(EVERYONE).id != other.candidates(EVERYONE).id
    assert found.drop("score").equals(plain.drop("score"))
    assert found["score"].is_between(0, 1).all()
    ranked = found.with_columns(raw=plain["score"]).filter(pl.col("interest") >= 0).sort("raw")
    assert (np.diff(ranked["score"].to_numpy()) >= 0).all()
    (calibration,) = [each for each in (folder / "workspace/calibration").iterdir() if other.calibration(other.index).id == each.name]
    assert (calibration / "calibration.json").is_file()
    summary = other.calibration(other.index).summary
    assert summary["hits"] > 0
    # The chance of a hit, summed over the lists of validation users, is the number of hits.
    assert summary["quality"]["error"] < 0.02
    assert other.candidates(EVERYONE).summary["scores"]["method"] == method


def test_shards_are_scored_alike(folder: Path) -> None:
    pipeline = pipeline_of(folder, scores="isotonic", batch_users=32)
    shards = [lists(pipeline, EVERYONE.of_shards(number, 2)) for number in (1, 2)]
    joined = pipeline.joined(EVERYONE, 2)
    assert pl.concat(shards).equals(pl.concat(pl.read_parquet(path) for path in joined.files("part-")))


def test_scores_that_nothing_can_be_learned_from_are_one_line(folder: Path, tmp_path: Path) -> None:
    pl.read_parquet(folder / "log.parquet").filter(pl.col("time") < 2).write_parquet(tmp_path / "log.parquet")
    pipeline = pipeline_of(tmp_path, {"name": "popular"}, scores="platt")
    with pytest.raises(DataContractError, match=r"validation targets; keep recall.scores = 'raw'"):
        pipeline.candidates(EVERYONE)


def test_imported_vectors_that_know_the_answers_teach_nothing(folder: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(1).standard_normal((250, 4)).astype(np.float32)
    pl.DataFrame({"item_id": range(50), "vector": random[:50]}).write_parquet(tmp_path / "items.parquet")
    pl.DataFrame({"user_id": range(200), "vector": random[50:]}).write_parquet(tmp_path / "users.parquet")
    paths = {"items": str(tmp_path / "items.parquet"), "users": str(tmp_path / "users.parquet")}
    model = {"name": "imported", **paths, "held_out": paths["users"]}
    # Under leave-last-out held-out vectors stand before the last event, and the one before it is what validation asks for.
    with pytest.raises(UsageError, match="imported vectors know what validation users did"):
        pipeline_of(folder, model, scores="platt").candidates(EVERYONE)
