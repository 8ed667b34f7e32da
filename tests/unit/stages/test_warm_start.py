"""Warm start: old items keep their vectors, new ones get rows, and anything else that differs is refused."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from retrieval.core.artifacts import Artifact, Manifest, write_manifest
from retrieval.core.errors import IntegrityError, InterruptedRunError, UsageError
from retrieval.models.table import build_model
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recipe import parse_recipe
from retrieval.stages.run import open_run
from retrieval.stages.train import Beginning
from retrieval.stages.warm_start import find_start, matching_rows
from retrieval.training.distributed import World
from retrieval.training.examples import Prefixes

MODEL = {"name": "comirec-sa", "dimension": 8, "interests": 2, "history": 6}
TRAIN = {"steps": 6, "validate_every": 2, "checkpoint_every": 2, "loss": {"negatives": 8}, "examples": {"batch_size": 4}}
TABLE = "items.embedding.weight"


def log_of(folder: Path, items: list[Any]) -> Path:
    """Twelve users who walk around a ring of items."""
    steps = pl.DataFrame({"user_id": range(12)}).join(pl.DataFrame({"time": range(9)}), how="cross")
    place = (pl.col("user_id") + pl.col("time")) % len(items)
    steps.with_columns(item_id=place.replace_strict(dict(enumerate(items)))).write_parquet(folder / "log.parquet")
    return folder / "log.parquet"


def pipeline_on(folder: Path, items: list[Any], start: object = "", **tables: Any) -> Pipeline:
    folder.mkdir(exist_ok=True)
    values = {
        "name": "day",
        "data": {"name": "log", "interactions": {"path": str(log_of(folder, items)), "time": "time", "time_unit": "seconds"}},
        "split": {"protocol": "leave-last-out"},
        "model": MODEL,
        "machine": {"threads": 1, "device": "cpu"},
        **tables,
    }
    values["train"] = {**TRAIN, **values.get("train", {}), "start_from": str(start)}
    return open_run(parse_recipe(values, "day.toml"), folder / "workspace")


@pytest.fixture(scope="module")
def yesterday(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return pipeline_on(tmp_path_factory.mktemp("yesterday") / "log", [10, 20, 30, 40, 50]).model_artifact


TODAY = [5, 10, 15, 30, 40, 45, 50, 99]


def test_old_items_keep_their_vectors_wherever_new_ones_come_between(yesterday: Artifact, tmp_path: Path) -> None:
    pipeline = pipeline_on(tmp_path, TODAY, yesterday.path)
    model, said = Beginning(pipeline.recipe, pipeline.dataset, yesterday).model()
    fresh = build_model(pipeline.recipe.model, 8, pipeline.recipe.seed).state_dict()
    old, state = load_file(yesterday.file("model.safetensors")), model.state_dict()
    assert pipeline.dataset.catalog.item_ids.to_list() == TODAY
    assert torch.equal(state[TABLE][[1, 3, 4, 6]], old[TABLE][[0, 2, 3, 4]])
    assert torch.equal(state[TABLE][[0, 2, 5, 7]], fresh[TABLE][[0, 2, 5, 7]])
    others = state.keys() - {TABLE}
    assert len(others) > 2
    assert all(torch.equal(state[name], old[name]) for name in others)
    assert any(not torch.equal(old[name], fresh[name]) for name in others)
    assert said == {"start": {"model": yesterday.id, "known_items": 4, "new_items": 4}}
    assert pipeline.model_artifact.summary["start"] == said["start"]


@pytest.mark.parametrize("chunk", [1, 16, 1000])
def test_a_share_of_the_table_starts_as_it_does_in_the_whole(
    yesterday: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr("retrieval.training.tensor_files.CHUNK", chunk)
    tables = {"train": {"sharding": "rows", "optimizer": {"item_table": "row-wise"}}}
    pipeline = pipeline_on(tmp_path, TODAY, yesterday.path, **tables)
    beginning = Beginning(pipeline.recipe, pipeline.dataset, yesterday)
    (whole, expected), *shares = (beginning.model(world) for world in (World(), World(0, 3), World(1, 3), World(2, 3)))
    assert [model.items.held for model, _ in shares] == [slice(0, 3), slice(3, 6), slice(6, 8)]
    assert torch.equal(torch.cat([model.items.held_items() for model, _ in shares]), whole.items.all_items())
    assert torch.equal(whole.items.all_items()[3], load_file(yesterday.file("model.safetensors"))[TABLE][2])
    assert [said for _, said in shares] == [expected] * 3


def test_the_start_is_part_of_what_a_model_is_and_its_name_is_not(yesterday: Artifact, tmp_path: Path) -> None:
    cold = pipeline_on(tmp_path, TODAY).model_id
    by_path = pipeline_on(tmp_path, TODAY, yesterday.path).model_id
    moved = shutil.copytree(yesterday.path, tmp_path / "moved")
    shutil.copytree(yesterday.path, tmp_path / "workspace/model" / yesterday.id)
    other = pipeline_on(tmp_path / "other", [10, 20, 30], train={"steps": 2}).model_artifact
    assert len({cold, by_path, pipeline_on(tmp_path, TODAY, other.path).model_id}) == 3
    assert by_path == pipeline_on(tmp_path, TODAY, moved).model_id == pipeline_on(tmp_path, TODAY, yesterday.id[:6]).model_id
    inputs = pipeline_on(tmp_path, TODAY, moved).model_artifact.manifest.inputs
    assert (set(inputs), inputs["start"]) == ({"dataset", "start", "start bytes"}, yesterday.id)


def test_other_weights_under_the_same_id_are_another_start(yesterday: Artifact, tmp_path: Path) -> None:
    moved = shutil.copytree(yesterday.path, tmp_path / "moved")
    tensors = load_file(moved / "model.safetensors")
    save_file({name: value + 1 for name, value in tensors.items()}, moved / "model.safetensors")
    with pytest.raises(IntegrityError, match="is damaged"):
        _ = pipeline_on(tmp_path, TODAY, moved).model_artifact
    record = yesterday.manifest.model_dump(mode="json")
    record["files"]["model.safetensors"]["sha256"] = "0" * 64
    write_manifest(moved, Manifest.model_validate(record))
    assert pipeline_on(tmp_path, TODAY, moved).model_id != pipeline_on(tmp_path, TODAY, yesterday.path).model_id


@pytest.mark.parametrize(
    ("tables", "items", "words"),
    [
        ({"model": {**MODEL, "dimension": 16}}, TODAY, "model.dimension is 16, the model to start from has 8"),
        ({"model": {**MODEL, "interests": 4}}, TODAY, "model.interests is 4, the model to start from has 2"),
        ({"model": {**MODEL, "history": 5}}, TODAY, "model.history is 5, the model to start from has 6"),
        ({"model": {**MODEL, "similarity": "cosine"}}, TODAY, "model.similarity is 'cosine'"),
        ({"model": {"name": "youtube-dnn", "dimension": 8, "history": 6}}, TODAY, "model.name is 'youtube-dnn'"),
        ({"model": {"name": "popular"}}, TODAY, "model.name is 'popular'"),
        ({}, [1, 2, 3], "knows none of the 3 items"),
        ({}, ["10", "20", "30"], "with String ids"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(yesterday: Artifact, tmp_path: Path, tables: dict, items: list, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        _ = pipeline_on(tmp_path, items, yesterday.path, **tables).model_artifact
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_only_training_sees_may_differ(yesterday: Artifact, tmp_path: Path) -> None:
    model = {**MODEL, "dropout": 0.3, "temperature": 0.5, "prior": {"hours": 0.001}}
    assert pipeline_on(tmp_path, TODAY, yesterday.path, model=model).model_artifact.summary["start"]["known_items"] == 4


def test_a_start_that_is_none_is_refused(yesterday: Artifact, tmp_path: Path) -> None:
    pipeline = pipeline_on(tmp_path, TODAY)
    with pytest.raises(UsageError, match="0 model artifacts match '0123'"):
        _ = pipeline_on(tmp_path, TODAY, "0123").model_id
    with pytest.raises(UsageError, match="is of kind 'dataset'"):
        _ = pipeline_on(tmp_path, TODAY, pipeline.dataset_artifact.path).model_id
    older = shutil.copytree(yesterday.path, tmp_path / "older")
    record = yesterday.manifest.model_dump(mode="json")
    del record["files"]["item_ids.parquet"]
    write_manifest(older, Manifest.model_validate(record))
    with pytest.raises(UsageError, match="does not say which items"):
        _ = pipeline_on(tmp_path, TODAY, older).model_id
    assert find_start(pipeline.recipe, pipeline.stages.workspace) is None


@pytest.mark.parametrize("stop", [1, 2, 5])
def test_stopped_it_goes_on_from_its_checkpoint_and_not_from_its_start(yesterday, tmp_path, monkeypatch, stop: int) -> None:
    whole = pipeline_on(tmp_path / "whole", TODAY, yesterday.path).model_artifact
    batch = Prefixes.batch

    def stopping(self: Prefixes, step: int):
        if step == stop:
            os.kill(os.getpid(), signal.SIGINT)
        return batch(self, step)

    with monkeypatch.context() as patch, pytest.raises(InterruptedRunError):
        patch.setattr(Prefixes, "batch", stopping)
        _ = pipeline_on(tmp_path / "parts", TODAY, yesterday.path).model_artifact
    seen: list[int] = []
    monkeypatch.setattr(Prefixes, "batch", lambda self, step: (seen.append(step), batch(self, step))[1])
    resumed = pipeline_on(tmp_path / "parts", TODAY, yesterday.path).model_artifact
    assert seen == list(range(stop + 1, 6))
    assert resumed.id == whole.id
    assert resumed.file("model.safetensors").read_bytes() == whole.file("model.safetensors").read_bytes()


def test_baselines_start_from_nothing(yesterday: Artifact, tmp_path: Path) -> None:
    pipeline = pipeline_on(tmp_path, TODAY, yesterday.path, evaluate={"baselines": ["k1", "popular"]}, recall={"n": 50})
    assert {name: "start" in each.model_artifact.summary for name, each in pipeline.baselines().items()} == {"k1": False, "popular": False}


def test_what_holds_for_warm_starts_holds_for_them_alone(yesterday: Artifact, tmp_path: Path) -> None:
    """A baseline is trained from fresh weights, so that as many steps as going on takes would make a weak one of it."""
    few = {"train": {"warm_steps": 2, "warm_newest": 3.0}, "evaluate": {"baselines": ["k1"]}, "recall": {"n": 50}}
    warm = pipeline_on(tmp_path, TODAY, yesterday.path, **few)
    steps = {name: each.model_artifact.summary["steps"] for name, each in {"own": warm, **warm.baselines()}.items()}
    assert steps == {"own": 2, "k1": TRAIN["steps"]}
    written = {"steps": 2, "examples": {**TRAIN["examples"], "newest": 3.0}}
    assert warm.model_id == pipeline_on(tmp_path, TODAY, yesterday.path, train=written).model_id
    assert warm.model_id != pipeline_on(tmp_path, TODAY, yesterday.path).model_id
    assert pipeline_on(tmp_path, TODAY, **few).model_id == pipeline_on(tmp_path, TODAY).model_id


def test_newest_targets_of_a_warm_start_need_windows(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"warm_newest needs examples\.name = 'prefixes'"):
        pipeline_on(tmp_path, TODAY, train={"warm_newest": 3.0, "examples": {"name": "random-cut"}})


def test_quantiles_that_ties_made_fewer_keep_their_places() -> None:
    def buckets(count: int) -> pl.Series:
        return pl.Series(["year#0", *(f"year#{place}/{count}" for place in range(1, count + 1)), "brand=a#1/2", f"shop#hash 1/{count}"])

    assert matching_rows(buckets(4), buckets(4)).tolist() == list(range(7))
    assert matching_rows(buckets(4), buckets(3)).tolist() == [0, 1, 3, 4, 5, -1]
    assert matching_rows(buckets(2), buckets(4)).tolist() == [0, 1, 1, 2, 2, 3, -1]
    others = pl.Series(["price#1/2", "brand=b#1/2", "brand=a#1/2"])
    assert matching_rows(buckets(4), others).tolist() == [-1, -1, 5]
