"""The pipeline: what survives a failure, and logs in which nobody is held out."""

import errno
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from retrieval.core.artifacts import StagedArtifact
from retrieval.core.errors import DataContractError, ResourceError
from retrieval.stages.audience import Scope
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recipe import parse_recipe
from retrieval.stages.run import open_run
from retrieval.stages.train import held_out_users
from retrieval.training.checkpoints import Checkpoints


def pipeline_on(events: pl.DataFrame, folder: Path, **tables: Any) -> Pipeline:
    events.write_parquet(folder / "log.parquet")
    interactions = {"path": str(folder / "log.parquet"), "user": "user_id", "item": "item_id", "time": "time", "time_unit": "order"}
    values = {
        "data": {"name": "log", "interactions": interactions},
        "split": {"protocol": "leave-last-out"},
        "train": {"steps": 3, "loss": {"negatives": 8}, "checkpoint_every": 1},
        "model": {"name": "comirec-sa", "dimension": 8, "history": 6},
        "machine": {"threads": 1, "device": "cpu"},
        **tables,
    }
    return open_run(parse_recipe(values, "log.toml"), folder / "workspace")


def walks(users: int, length: int) -> pl.DataFrame:
    steps = pl.DataFrame({"user_id": range(users)}).join(pl.DataFrame({"time": range(length)}), how="cross")
    return steps.with_columns(item_id=(pl.col("user_id") + pl.col("time")) % 9)


def test_a_disk_that_is_full_at_the_end_does_not_cost_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = pipeline_on(walks(10, 8), tmp_path)
    assert pipeline.dataset.catalog.n_items == 9

    def full(staged: StagedArtifact) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(ResourceError, match="disk is full"):
        patch.setattr(StagedArtifact, "records", full)
        _ = pipeline.model_artifact
    (checkpoints,) = (tmp_path / "workspace/.staging").glob("model-*/")
    found = Checkpoints(checkpoints).load()
    assert found is not None
    assert found[0].step == 3
    summary = pipeline.model_artifact.summary
    assert (summary["steps"], summary["device"], summary["products"] in ("float32", "bfloat16")) == (3, "cpu", True)
    assert not checkpoints.exists()


def test_a_finished_model_is_opened_without_writing_anything(tmp_path: Path) -> None:
    first = pipeline_on(walks(10, 8), tmp_path).model_artifact
    before = sorted(tmp_path.rglob("*"))
    assert pipeline_on(walks(10, 8), tmp_path).model_artifact.id == first.id
    assert sorted(tmp_path.rglob("*")) == before


def test_where_nobody_is_held_out_there_are_lists_and_nothing_to_measure(tmp_path: Path) -> None:
    pipeline = pipeline_on(walks(4, 2), tmp_path, model={"name": "popular"}, recall={"n": 50})
    assert pipeline.index.summary["queries"] == 4
    assert pipeline.candidates(Scope(who="all")).summary["users_with_a_list"] == 4
    with pytest.raises(DataContractError):
        _ = pipeline.measurements


def test_validation_holds_what_its_users_see_and_not_the_log(tmp_path: Path) -> None:
    pipeline = pipeline_on(walks(10, 8), tmp_path)
    held_out = held_out_users(pipeline.dataset, "valid", 3, seed=1)
    assert (held_out.cut - held_out.start).tolist() == [6, 6, 6]
    assert len(held_out.items) == len(held_out.times) == 3 * 6
    # The walk goes on around the ring, so the first target follows the last event that is seen.
    last = held_out.items[held_out.cut - 1].long()
    assert (held_out.target_keys % 9).tolist() == ((last + 1) % 9).tolist()
