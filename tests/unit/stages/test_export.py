"""Exported vectors: the served score can be made from them, and a killed export goes on."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from retrieval.core.artifacts import Artifact
from retrieval.core.errors import ConflictError, IntegrityError
from retrieval.stages import export as export_module
from retrieval.stages import user_vectors
from retrieval.stages.audience import Scope
from retrieval.stages.export import ExportSettings
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recipe import parse_recipe
from retrieval.stages.run import open_run

EVERYONE = Scope(who="all")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A trained model of three interests, and a prior that makes scored vectors longer than the encoder's."""
    folder = tmp_path_factory.mktemp("export")
    steps = pl.DataFrame({"user_id": [f"u{i}" for i in range(25)]}).join(pl.DataFrame({"time": range(9)}), how="cross")
    events = steps.with_columns(item_id=(pl.col("user_id").str.slice(1).cast(pl.Int64) + pl.col("time") * pl.col("time")) % 31)
    events.with_columns(time=pl.col("time") * 3600 + 1_600_000_000).write_parquet(folder / "log.parquet")
    interactions = {"path": str(folder / "log.parquet"), "user": "user_id", "item": "item_id", "time": "time"}
    values = {
        "data": {"name": "log", "interactions": interactions},
        "split": {"protocol": "leave-last-out"},
        "train": {"steps": 3, "loss": {"negatives": 8}},
        "model": {"name": "mind", "dimension": 8, "history": 6, "interests": 3, "prior": {"hours": 2}},
        "recall": {"n": 5, "pool": 10, "batch_users": 4},
        "evaluate": {"cutoffs": [5], "primary": "recall@5", "baselines": []},
        "machine": {"threads": 1, "device": "cpu"},
    }
    return open_run(parse_recipe(values, "log.toml"), folder / "workspace")


def rows(export: Artifact, kind: str) -> pl.DataFrame:
    """The table of all files of a kind, vectors of either format as lists."""
    tables = []
    for path in export.files(f"{kind}/"):
        if path.suffix == ".parquet":
            table = pl.read_parquet(path)
            vectors = None if "vector" in table.columns else np.load(path.with_suffix(".npy"))
            tables.append(table if vectors is None else table.with_columns(vector=pl.Series(vectors)))
    return pl.concat(tables)


def settings(**changes: Any) -> ExportSettings:
    return ExportSettings(**{"users": EVERYONE, "shard_rows": 7, **changes})


@pytest.mark.parametrize("file_format", ["parquet", "npy"])
def test_served_scores_are_inner_products_of_what_is_exported(pipeline: Pipeline, tmp_path: Path, file_format: str) -> None:
    export = pipeline.export(tmp_path / "vectors", settings(format=file_format))
    items, users = rows(export, "items"), rows(export, "users")
    assert items["item_id"].to_list() == pipeline.dataset.catalog.item_ids.to_list()
    assert users["user_id"].unique(maintain_order=True).to_list() == pipeline.dataset.users["user_id"].to_list()
    assert users.columns == ["user_id", "interest", "vector"]
    best = items.join(users, how="cross").with_columns(score=(pl.col("vector") * pl.col("vector_right")).arr.sum())
    scores = best.group_by("user_id", "item_id").agg(pl.col("score").max())
    served = pl.concat(pl.read_parquet(path) for path in pipeline.candidates(EVERYONE).files("part-"))
    compared = served.join(scores, on=["user_id", "item_id"], how="left", suffix="_made")
    np.testing.assert_allclose(compared["score_made"], compared["score"], rtol=1e-5)


def test_the_manifest_says_what_is_there(pipeline: Pipeline, tmp_path: Path) -> None:
    export = pipeline.export(tmp_path / "vectors", settings())
    items, users = rows(export, "items"), rows(export, "users")
    summary = export.summary
    assert (summary["items"], summary["users"], summary["user_vectors"]) == (items.height, 25, users.height)
    assert (summary["dtype"], summary["dimension"], summary["columns"]) == ("float32", 9, {"encoder": 8, "item prior": 1})
    assert (summary["model_id"], summary["vectors_id"]) == (pipeline.model_artifact.id, pipeline.vectors.id)
    assert export.manifest.inputs == {"dataset": pipeline.content, "vectors": pipeline.vectors.id}


def test_a_file_holds_whole_users_and_no_more_rows_than_asked(pipeline: Pipeline, tmp_path: Path) -> None:
    export = pipeline.export(tmp_path / "vectors", settings())
    files = [pl.read_parquet(path) for path in export.files("users/")]
    assert max(each.height for each in files) <= 7
    assert sum(each["user_id"].n_unique() for each in files) == 25
    assert [path.name for path in export.files("items/")][:2] == ["part-00000.parquet", "part-00001.parquet"]
    alone = pipeline.export(tmp_path / "alone", settings(shard_rows=1))
    assert [pl.read_parquet(path)["user_id"].n_unique() for path in alone.files("users/")] == [1] * 25


def test_nobody_can_be_exported_too(pipeline: Pipeline, tmp_path: Path) -> None:
    export = pipeline.export(tmp_path / "vectors", settings(users=None))
    assert export.files("users/") == []
    assert "users" not in export.summary


def test_the_same_export_is_found_and_any_other_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    folder = tmp_path / "vectors"
    first = pipeline.export(folder, settings())
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert pipeline.export(folder, settings()).id == first.id
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["vectors"]
    with pytest.raises(ConflictError, match=f"holds export {first.id}"):
        pipeline.export(folder, settings(format="npy"))
    with pytest.raises(ConflictError, match="holds something else"):
        pipeline.export(tmp_path, settings())
    first.files("users/")[0].write_bytes(b"PAR1")
    with pytest.raises(IntegrityError, match="is damaged"):
        pipeline.export(folder, settings())


def test_an_export_that_died_encodes_only_the_users_it_had_not_finished(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval.stages.export.PART_USERS", 10)
    whole = pipeline.export(tmp_path / "whole", settings())
    encode, batches = type(pipeline.users)._batch, []

    def dying(self: user_vectors.AbstractUserVectors, audience: Any) -> Any:
        batches.append(len(audience.users))
        if len(batches) == 5:
            raise KeyboardInterrupt
        return encode(self, audience)

    monkeypatch.setattr(type(pipeline.users), "_batch", dying)
    with pytest.raises(KeyboardInterrupt):
        pipeline.export(tmp_path / "again", settings())
    batches[:] = [0] * 10
    again = pipeline.export(tmp_path / "again", settings())
    # Of 25 users in parts of two batches, two parts were finished.
    assert batches[10:] == [4, 4, 1]
    assert again.manifest.files == whole.manifest.files


@pytest.mark.parametrize("file_format", ["parquet", "npy"])
def test_tasks_export_what_one_process_exports(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_format: str
) -> None:
    """In any order, beside a part that is there already; what a task wrote is not written again."""
    monkeypatch.setattr(export_module, "PART_USERS", 8)
    whole = pipeline.export(tmp_path / "whole", settings(format=file_format))
    made: list[str] = []

    def here(task: Any, orders: Any, _: Any, **more: Any) -> Any:
        for name, order in reversed(orders.items()):
            made.append(name)
            written = task(order)
            assert task(order)["users"] == written["users"]
            yield name, written

    monkeypatch.setattr("retrieval.stages.ray_shards.run_tasks", here)
    machine = pipeline.recipe.machine.model_copy(update={"engine": "ray"})
    other = Pipeline(pipeline.recipe.model_copy(update={"machine": machine}), pipeline.stages)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(export_module, "_renumbered", lambda *_: 1 / 0)
        other.export(tmp_path / "tasks", settings(format=file_format))
    assert made == ["part 3", "part 2", "part 1", "part 0"]
    found = other.export(tmp_path / "tasks", settings(format=file_format))
    assert len(made) == 4
    assert (found.manifest.files, found.summary) == (whole.manifest.files, whole.summary)
    assert len([name for name in found.manifest.files if name.startswith("users/")]) > 4
    assert not (tmp_path / ".staging").exists()
