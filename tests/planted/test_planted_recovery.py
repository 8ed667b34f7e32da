"""The right answer is planted: several interests find it, one vector cannot."""

import numpy as np
import polars as pl
import pytest

from retrieval.evaluation.comparison import compare
from retrieval.evaluation.measurements import Measurements
from retrieval.evaluation.planted import planted_recovery
from retrieval.stages.audience import Scope
from retrieval.stages.build_index import load_vectors
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recipe import parse_recipe
from retrieval.stages.run import open_run

RECIPE = {
    "generate": {
        "users": 1200,
        "items": 800,
        "days": 30,
        "seed": 5,
        "catalog": {"categories": 8, "subcategories": 5, "new_items": 0.0},
        "behaviour": {"events_per_user": 40, "drift": 0.0, "activity_spread": 0.3},
    },
    "data": {
        "name": "planted",
        "interactions": {"path": "generated/interactions"},
        "items": {"path": "generated/items.parquet", "categories": "categories"},
        "filters": {"min_user_events": 10},
    },
    "model": {"name": "comirec-sa", "dimension": 32, "interests": 4, "history": 30, "temperature": 0.3},
    "train": {
        "steps": 300,
        "examples": {"batch_size": 32},
        "validate_every": 100,
        "loss": {"negatives": 128},
        "optimizer": {"learning_rate": 0.01},
    },
    "recall": {"n": 50, "filter_seen": False},
    "machine": {"threads": 1},
    "evaluate": {"baselines": ["popular", "k1"], "frontier_lambdas": [0.0]},
}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return open_run(parse_recipe(RECIPE, "planted.toml"), tmp_path_factory.mktemp("workspace"))


def measured(pipeline: Pipeline) -> Measurements:
    artifact = pipeline.measurements
    return Measurements.read(artifact.file)


def test_as_many_interests_as_were_planted_recover_them(pipeline: Pipeline) -> None:
    files = pipeline.candidates(Scope()).files("interests-")
    folder = next((pipeline.stages.workspace.root / "generated").iterdir())
    tables = [pl.read_parquet(folder / f"planted_{name}.parquet") for name in ("items", "interests")]
    ids, vectors = pipeline.dataset.catalog.item_ids, load_vectors(pipeline.vectors)
    recovery = planted_recovery(files, vectors, ids, *tables, nearest=10)
    shuffled = planted_recovery(files, np.random.default_rng(0).permutation(vectors), ids, *tables, nearest=10)
    # Two interests of a user may stand for one topic, so four interests find fewer than four topics.
    assert recovery.found > 0.4
    assert recovery.true > 0.8
    assert shuffled.found < 0.15


def test_four_interests_beat_one_and_one_beats_popularity(pipeline: Pipeline) -> None:
    others = pipeline.baselines()
    four, one, popular = measured(pipeline), measured(others["k1"]), measured(others["popular"])
    assert compare(four, one).higher("recall@50") is True
    assert compare(one, popular).higher("recall@50") is True
