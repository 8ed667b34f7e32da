"""Markov and item-kNN in the pipeline: counted in training events only, through the same filters, lists and evaluation."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from retrieval.core.errors import UsageError
from retrieval.stages.audience import Scope
from retrieval.stages.explain import explain_users
from retrieval.stages.export import ExportSettings
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recipe import baseline_recipes, parse_recipe
from retrieval.stages.run import open_run

PROTOCOLS: dict[str, dict[str, Any]] = {
    "comirec": {"protocol": "comirec"},
    "leave-last-out": {"protocol": "leave-last-out"},
    "global-time": {"protocol": "global-time", "valid_from": 14, "test_from": 16, "target": "first"},
}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty users walk around a ring of 40 items for 18 steps; so what follows is certain, and popularity knows nothing."""
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    steps = pl.DataFrame({"user_id": range(60)}).join(pl.DataFrame({"time": range(18)}), how="cross")
    steps.with_columns(item_id=(pl.col("user_id") + pl.col("time")) % 40).write_parquet(path)
    return path


def pipeline_of(log: Path, workspace: Path, protocol: str, model: dict[str, Any], **recall: Any) -> Pipeline:
    interactions = {"path": str(log), "user": "user_id", "item": "item_id", "time": "time", "time_unit": "order"}
    values = {
        "data": {"name": "ring", "interactions": interactions},
        "split": PROTOCOLS[protocol],
        "model": model,
        "recall": {"n": 5, "pool": 8, **recall},
        "machine": {"threads": 1},
        "evaluate": {
            "cutoffs": [1, 5],
            "primary": "recall@5",
            "baselines": ["markov", "item-knn"],
            "frontier_lambdas": [0.0],
            "resamples": 10,
        },
    }
    return open_run(parse_recipe(values, "ring.toml"), workspace)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_markov_knows_what_follows_where_popularity_does_not(log: Path, tmp_path: Path, protocol: str) -> None:
    pipeline = pipeline_of(log, tmp_path, protocol, {"name": "popular"})
    found = {name: other.measurements.summary["metrics"] for name, other in pipeline.baselines().items()}
    assert found["markov"]["hr@1"]["mean"] == 1.0
    # Neighbours on both sides of the ring: the next item is among the nearest.
    assert found["item-knn"]["hr@5"]["mean"] > 0.9
    assert pipeline.measurements.summary["metrics"]["hr@5"]["mean"] < 0.5


def test_lists_keep_to_filters_and_are_filled_with_what_is_popular(log: Path, tmp_path: Path) -> None:
    (tmp_path / "blocked.txt").write_text("7\n8\n")
    model = {"name": "markov"}
    pipeline = pipeline_of(log, tmp_path, "leave-last-out", model, filter={"block": [str(tmp_path / "blocked.txt")]})
    lists = pl.concat(pl.read_parquet(path) for path in pipeline.candidates(Scope(who="all")).files("part-"))
    assert lists.group_by("user_id").len()["len"].to_list() == [5] * 60
    assert not set(lists["item_id"]) & {7, 8}
    events = pl.read_parquet(log)
    assert lists.join(events, on=["user_id", "item_id"], how="semi").is_empty()
    first = lists.filter(pl.col("rank") == 1).with_columns(follows=(pl.col("user_id") + 18) % 40)
    known = first.filter(~pl.col("follows").is_in([7, 8]))
    assert (known["item_id"] == known["follows"]).all()
    assert lists.filter(pl.col("interest") == -1)["score"].unique().to_list() == [0.0]
    assert (lists.filter(pl.col("interest") == 0)["score"] > 0).all()


def test_a_baseline_like_the_model_is_left_out_and_the_others_stay(log: Path, tmp_path: Path) -> None:
    recipe = pipeline_of(log, tmp_path, "comirec", {"name": "markov"}).recipe
    assert set(baseline_recipes(recipe)) == {"item-knn"}


def test_neighbours_explain_by_the_last_event_and_export_nothing(log: Path, tmp_path: Path) -> None:
    pipeline = pipeline_of(log, tmp_path, "leave-last-out", {"name": "markov"})
    item = next(explain_users(pipeline, ["3"], 1)).items[0]
    assert (item.item_id, item.driven_by) == ((3 + 18) % 40, (str((3 + 17) % 40),))
    with pytest.raises(UsageError, match="markov scores by neighbours"):
        pipeline.export(tmp_path / "vectors", ExportSettings())


def test_the_same_lists_from_any_threads(log: Path, tmp_path: Path) -> None:
    found = []
    for threads in (1, 3):
        pipeline = pipeline_of(log, tmp_path / str(threads), "comirec", {"name": "item-knn"}, threads=threads)
        found.append(pl.concat(pl.read_parquet(path) for path in pipeline.candidates(Scope(who="all")).files("part-")))
    assert found[0].equals(found[1])
    assert np.isfinite(found[0]["score"].to_numpy()).all()
