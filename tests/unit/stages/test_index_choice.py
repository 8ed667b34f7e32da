"""build-index with a target: chosen once, written down, kept over a kill; an index below its gate is refused by recall."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from retrieval.cli.main import app
from retrieval.core.artifacts import Artifact
from retrieval.core.errors import ConflictError, QualityGateError, UsageError
from retrieval.index import table
from retrieval.index.abstract import AbstractIndex
from retrieval.index.choice import choose as choose_module
from retrieval.index.settings import IndexSettings
from retrieval.recall.search import InterestSearch
from retrieval.stages import build_index as stage
from retrieval.stages import index_choice
from retrieval.stages.audience import Scope, held_out
from retrieval.stages.item_filter import never_given
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recipe import parse_recipe
from retrieval.stages.run import open_run


def pipeline_on(folder: Path, **index: Any) -> Pipeline:
    users = pl.DataFrame({"user_id": range(300)}).join(pl.DataFrame({"time": range(12)}), how="cross")
    users.with_columns(item_id=(pl.col("user_id") * 3 + pl.col("time")) % 900).write_parquet(folder / "log.parquet")
    interactions = {"path": str(folder / "log.parquet"), "user": "user_id", "item": "item_id", "time": "time", "time_unit": "order"}
    values = {
        "data": {"name": "log", "interactions": interactions},
        "split": {"protocol": "leave-last-out"},
        "train": {"steps": 3, "loss": {"negatives": 8}},
        "model": {"name": "comirec-sa", "dimension": 8, "interests": 2, "history": 6},
        "recall": {"n": 50},
        "machine": {"threads": 1, "device": "cpu"},
        "index": {"device": "cpu", **index},
    }
    return open_run(parse_recipe(values, "log.toml"), folder / "workspace")


def test_a_choice_is_in_the_manifest_and_beside_the_index(tmp_path: Path) -> None:
    pipeline = pipeline_on(tmp_path, choose={"target_recall": 0.95, "n": 10, "max_memory": "1GB"})
    index = pipeline.index
    gate = index.summary["gate"]
    assert (index.summary["factory"], gate["held"], gate["wanted"]) == ("exact", True, 0.95)
    assert index.summary["recall@10"] == gate["lower_bound"] == 1.0
    assert {"index.faiss", "choice.json", "front.csv", "front.md", "front.svg"} == set(index.manifest.files)
    record = json.loads(index.file("choice.json").read_text())
    assert [point["verdict"] for point in record["points"]] == ["chosen"]
    assert index.summary["search"]["factory"] == "exact"
    assert pipeline.candidates(Scope(who="all")).summary["users_with_a_list"] == 300


def test_users_who_judge_are_drawn_from_all_and_the_same_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, asked = pipeline_on(tmp_path), []
    batch = type(pipeline.users)._batch
    monkeypatch.setattr(type(pipeline.users), "_batch", lambda self, users: asked.append(users) or batch(self, users))
    found = [pipeline.some_users(20) for _ in range(2)]
    drawn = asked[0].users.tolist()
    assert min(drawn) < 100 < 200 < max(drawn)
    assert asked[0].visible.tolist() == held_out(pipeline.dataset).visible[drawn].tolist()
    assert found[0].vectors.shape[0] == 20
    assert found[0].vectors.tobytes() == found[1].vectors.tobytes()


@pytest.mark.parametrize("choose", [{"n": 10}, {"n": 10, "target_recall": 0.5}])
def test_items_that_recall_never_gives_judge_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choose: dict[str, Any]) -> None:
    blocked, judges = np.arange(900) % 3 == 0, []
    monkeypatch.setattr("retrieval.stages.pipeline.never_given", lambda *_: blocked)
    for module in (stage, choose_module):
        judge = module.Judge
        monkeypatch.setattr(module, "Judge", lambda *given, judge=judge: judges.append(judge(*given)) or judges[-1])
    searched = []
    monkeypatch.setattr(index_choice, "InterestSearch", lambda *given, **named: searched.append(named) or InterestSearch(*given, **named))
    _ = pipeline_on(tmp_path, factory="IVF8,Flat", nprobe=8, choose=choose).index
    assert judges
    assert searched
    assert not any(blocked[judge.rows].any() for judge in judges)
    assert all(named["blocked"] is blocked for named in searched)


def test_items_without_a_training_event_are_never_given(tmp_path: Path) -> None:
    pipeline = pipeline_on(tmp_path)
    nothing = never_given(pipeline.recipe, pipeline.dataset, pipeline.vectors)
    assert not nothing.any()
    later = pipeline.recipe.model_copy(update={"split": pipeline.recipe.split.model_copy(update={"protocol": "global-time"})})
    events = pipeline.dataset.catalog.events.copy()
    events[[3, 5]] = 0
    dataset = SimpleNamespace(catalog=SimpleNamespace(events=events))
    assert np.flatnonzero(never_given(later, dataset, pipeline.vectors)).tolist() == [3, 5]


def test_limits_are_part_of_the_identity(tmp_path: Path) -> None:
    ids = {pipeline_on(tmp_path, choose={"target_recall": target, "n": 10}).index.id for target in (0.9, 0.95, 0.95)}
    assert len(ids) == 2


def test_who_comes_back_after_a_kill_builds_what_was_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = pipeline_on(tmp_path, choose={"target_recall": 0.95, "n": 10})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(index_choice, "_show", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        _ = pipeline.index
    (kept,) = (tmp_path / "workspace/.staging").glob("index-*/choice.json")
    before = json.loads(kept.read_text())
    monkeypatch.setattr(index_choice, "choose", lambda *_: pytest.fail("chosen twice"))
    index = pipeline_on(tmp_path, choose={"target_recall": 0.95, "n": 10}).index
    assert json.loads(index.file("choice.json").read_text()) == before
    assert not kept.exists()


def test_two_processes_do_not_build_the_same_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build_meanwhile(*arguments: Any) -> AbstractIndex:
        with pytest.raises(ConflictError, match=f"build-index: process {os.getpid()} of .* is at it"):
            _ = pipeline_on(tmp_path, factory="IVF8,Flat").index
        return table.build_index(*arguments)

    monkeypatch.setattr(stage, "build_index", build_meanwhile)
    assert pipeline_on(tmp_path, factory="IVF8,Flat").index.summary["count"] == 900
    assert not list((tmp_path / "workspace/.staging").glob("index-*/"))


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"factory": "IVF8,Flat", "nprobe": 1, "min_recall": 0.999, "choose": {"n": 10}}, "index.min_recall"),
        ({"choose": {"target_recall": 0.95, "n": 10, "max_latency": "0.001us"}}, "index.choose.target_recall"),
    ],
)
def test_an_index_below_its_gate_is_kept_and_refused(settings: dict[str, Any], where: str, tmp_path: Path) -> None:
    pipeline = pipeline_on(tmp_path, **settings)
    with pytest.raises(QualityGateError, match=where) as built:
        _ = pipeline.index
    assert "\n" not in str(built.value)
    (path,) = list((tmp_path / "workspace/index").iterdir())
    assert (f"or delete {path} to measure again" in str(built.value)) == ("choose" in where)
    with pytest.raises(QualityGateError, match=where):
        _ = pipeline_on(tmp_path, **settings).index
    other = pipeline_on(tmp_path)
    with pytest.raises(QualityGateError, match="of the exact result"):
        other.candidates(Scope(who="all"), other.other_index(path.name))


def test_limits_go_with_a_target_of_the_recipe_and_with_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[IndexSettings] = []

    def index(pipeline: Pipeline) -> Artifact:
        asked.append(pipeline.recipe.index)
        raise KeyboardInterrupt

    monkeypatch.setattr(Pipeline, "index", property(index))
    command = ["build-index", "pipelines/sample.toml", "-w", str(tmp_path), "--max-memory", "2GB"]
    found = CliRunner().invoke(app, command)
    assert isinstance(found.exception, UsageError)
    assert "add --target-recall" in str(found.exception)
    assert not asked
    CliRunner().invoke(app, [*command, "--set", "index.choose.target_recall=0.9"])
    CliRunner().invoke(app, [*command, "--target-recall", "0.8"])
    assert [(each.choose.target_recall, each.choose.max_memory) for each in asked] == [(0.9, 2e9), (0.8, 2e9)]
