"""Every list builder from a log to its place on the frontier."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from retrieval.core.errors import UsageError
from retrieval.evaluation.bootstrap import Interval
from retrieval.recall.lists import LIST_BUILDERS
from retrieval.stages.audience import Scope
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recipe import Recipe, parse_recipe
from retrieval.stages.run import open_run, run_all

BUILDERS = [name for name in LIST_BUILDERS if name != "top"]
LAMBDAS = [0.0, 0.5, 3.0]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty users walk around a ring of 60 items; every third item has two categories, every seventh none."""
    folder = tmp_path_factory.mktemp("tables")
    steps = pl.DataFrame({"user_id": range(40)}).join(pl.DataFrame({"time": range(12)}), how="cross")
    steps.with_columns(item_id=(7 * pl.col("user_id") + pl.col("time")) % 60).write_parquet(folder / "log.parquet")
    own = [[] if item % 7 == 0 else [f"c{item // 6}", "odd"] if item % 3 == 0 else [f"c{item // 6}"] for item in range(60)]
    pl.DataFrame({"item_id": range(60), "genres": own}).write_parquet(folder / "items.parquet")
    return folder


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace")


def recipe_of(tables: Path, builders: list[str], **recall: Any) -> Recipe:
    interactions = {"path": str(tables / "log.parquet"), "user": "user_id", "item": "item_id", "time": "time", "time_unit": "order"}
    values = {
        "data": {"name": "ring", "interactions": interactions, "items": {"path": str(tables / "items.parquet"), "categories": "genres"}},
        "split": {"protocol": "leave-last-out"},
        "model": {"name": "comirec-sa", "dimension": 8, "history": 6},
        "train": {"steps": 4, "loss": {"negatives": 8}},
        "recall": {"n": 10, "pool": 30, "scale_free": True, "builder": {"per_category": 4}, **recall},
        "machine": {"threads": 1},
        "report": {"map_items": 0},
        "evaluate": {
            "cutoffs": [10],
            "primary": "recall@10",
            "baselines": [],
            "resamples": 100,
            "frontier_builders": builders,
            "frontier_lambdas": LAMBDAS,
        },
    }
    return parse_recipe(values, "ring.toml")


def points(pipeline: Pipeline) -> dict[tuple[str, float], dict[str, Interval]]:
    found = json.loads(pipeline.measurements.file("frontier.json").read_text())
    return {(each["builder"], each["weight"]): {name: Interval(**value) for name, value in each["metrics"].items()} for each in found}


@pytest.fixture(scope="module")
def frontier(tables: Path, workspace: Path) -> dict[tuple[str, float], dict[str, Interval]]:
    return points(open_run(recipe_of(tables, BUILDERS), workspace))


def test_every_builder_stands_on_the_frontier_of_one_search(frontier) -> None:
    assert list(frontier) == [(name, weight) for name in BUILDERS for weight in LAMBDAS]
    at_zero = [frontier[name, 0.0] for name in BUILDERS if name != "quota"]
    assert all(each == at_zero[0] for each in at_zero)
    varied = {name for name in BUILDERS if frontier[name, 3.0]["diversity@10"].mean > frontier[name, 0.0]["diversity@10"].mean}
    assert {"category_greedy", "multi_category_greedy", "quota"} <= varied


@pytest.mark.parametrize("name", BUILDERS)
def test_lists_are_where_the_frontier_says(tables: Path, workspace: Path, frontier, name: str) -> None:
    """The frontier knows users by what lies in files, recall by their histories: the same lists come of both."""
    pipeline = open_run(recipe_of(tables, [], diversity=name, **{"lambda": 3.0}), workspace)
    summary = json.loads(pipeline.measurements.file("summary.json").read_text())["metrics"]
    assert {metric: Interval(**value) for metric, value in summary.items()} == frontier[name, 3.0]
    assert list(points(pipeline)) == [(name, weight) for weight in LAMBDAS]
    shown = json.loads(run_all(pipeline).report.file("report.json").read_text())["frontier"]
    assert [(point["builder"], point["weight"]) for point in shown if point["chosen"]] == [(name, 3.0)]


def test_what_is_mixed_in_is_on_the_frontier_too(tables: Path, workspace: Path, frontier) -> None:
    mixed = open_run(recipe_of(tables, [], diversity="mmr", mix_in={"below": 12, "share": 0.5}, **{"lambda": 3.0}), workspace)
    summary = json.loads(mixed.measurements.file("summary.json").read_text())["metrics"]
    assert {metric: Interval(**value) for metric, value in summary.items()} == points(mixed)["mmr", 3.0]
    assert points(mixed)["mmr", 3.0] != frontier["mmr", 3.0]


@pytest.mark.parametrize("name", BUILDERS)
def test_everybody_can_be_served_by_every_builder(tables: Path, workspace: Path, name: str) -> None:
    pipeline = open_run(recipe_of(tables, [], diversity=name, **{"lambda": 3.0}), workspace)
    found = pl.concat(pl.read_parquet(path) for path in pipeline.candidates(Scope(who="all")).files("part-"))
    assert found.height == 40 * 10
    assert found.select("user_id", "item_id").is_unique().all()


def test_an_unknown_builder_of_the_frontier_is_refused_with_the_recipe(tables: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown list builder 'mrr' in evaluate\.frontier_builders; did you mean 'mmr'"):
        recipe_of(tables, ["mrr"])
