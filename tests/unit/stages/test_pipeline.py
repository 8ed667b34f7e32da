"""The pipeline: what survives a failure, and logs in which nobody is held out."""

import errno
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from retrieval.core import parts
from retrieval.core.artifacts import StagedArtifact
from retrieval.core.errors import ConflictError, DataContractError, ResourceError, UsageError
from retrieval.stages import prepare
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


@pytest.mark.parametrize("kind", ["grows", "is replaced", "gets a neighbour"])
def test_a_log_that_changes_while_it_is_read_makes_no_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """An upload that is still under way: the hash is of one half, the rows are of two."""
    pipeline, log = pipeline_on(walks(10, 8), tmp_path), tmp_path / "log.parquet"
    if kind == "gets a neighbour":
        (tmp_path / "log").mkdir()
        log = log.rename(tmp_path / "log/a.parquet")
        pipeline = pipeline_on(walks(10, 8), tmp_path, data=pipeline.recipe.data.at({"interactions": str(log.parent)}).model_dump())
    read = prepare.prepare

    def written_meanwhile(*given: Any, **named: Any) -> None:
        read(*given, **named)
        more = walks(10, 9).with_columns(pl.col("user_id") + 100)
        more.write_parquet(log if kind == "grows" else log.with_name("b.parquet"))
        if kind == "is replaced":
            log.with_name("b.parquet").replace(log)

    with monkeypatch.context() as patch, pytest.raises(ConflictError, match=r"\.parquet: changed while it was read"):
        patch.setattr(prepare, "prepare", written_meanwhile)
        _ = pipeline.dataset_artifact
    assert pipeline.stages.workspace.list("dataset") == []
    assert pipeline.dataset.sequences.lengths.sum() > 0


@pytest.mark.parametrize("name", ["../../x", "/x", "a/b", "..", "", "a\nb"])
@pytest.mark.parametrize("table", ["", "data"])
def test_names_do_not_lead_out_of_the_workspace(tmp_path: Path, name: str, table: str) -> None:
    recipe = pipeline_on(walks(10, 8), tmp_path).recipe.model_dump()
    (recipe[table] if table else recipe)["name"] = name
    with pytest.raises(UsageError, match=f"{table}.*name.* no name of a file"):
        parse_recipe(recipe, "log.toml")


def test_bad_rows_are_left_where_the_recipe_says_by_its_name(tmp_path: Path) -> None:
    pipeline = pipeline_on(walks(10, 8).with_columns(user_id=pl.when(pl.col("time") > 5).then("user_id")), tmp_path, name="a recipe")
    with pytest.raises(DataContractError, match=r"quarantine/a recipe/log\.parquet"):
        _ = pipeline.dataset
    assert (tmp_path / "workspace/quarantine/a recipe/log.parquet").is_file()


def test_a_training_goes_on_with_the_libraries_that_began_it_or_begins_anew(tmp_path: Path, monkeypatch, capsys) -> None:
    pipeline = pipeline_on(walks(10, 8), tmp_path)
    pipeline.train_until(1)
    pipeline.train_until(2)
    assert "resumed" in "".join(capsys.readouterr())
    monkeypatch.setattr(parts, "library_versions", lambda: {"torch": "0.0"})
    pipeline.train_until(2)
    said = "".join(capsys.readouterr())
    assert "begins anew" in said
    assert "resumed" not in said
    assert pipeline.model_artifact.summary["steps"] == 3


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
