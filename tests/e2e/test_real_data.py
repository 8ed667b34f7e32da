"""A real log: a model has to beat popularity on it, with the interval clear of zero."""

from pathlib import Path

import pytest

from retrieval.evaluation.comparison import compare
from retrieval.evaluation.measurements import Measurements
from retrieval.stages.recipe import parse_recipe
from retrieval.stages.run import open_run


@pytest.mark.realdata
def test_comirec_sa_beats_popularity_on_movielens_100k(real_data: Path, tmp_path: Path) -> None:
    recipe = {
        "data": {
            "name": "ml-100k",
            "interactions": {"path": str(real_data / "ml-100k/interactions.parquet"), "order": "order"},
            "items": {"path": str(real_data / "ml-100k/items.parquet"), "title": "title", "categories": "categories"},
        },
        "model": {"name": "comirec-sa", "dimension": 32, "temperature": 0.3},
        "train": {
            "steps": 300,
            "validate_every": 50,
            "examples": {"batch_size": 32, "least_history": 26},
            "loss": {"negatives": 256},
            "optimizer": {"learning_rate": 0.005},
        },
        "recall": {"n": 50, "filter_seen": False},
        "evaluate": {"baselines": ["popular"]},
        "machine": {"threads": 1},
    }
    pipeline = open_run(parse_recipe(recipe, "ml-100k.toml"), tmp_path)
    artifacts = (pipeline.measurements, pipeline.baselines()["popular"].measurements)
    model, popular = (Measurements.read(each.file) for each in artifacts)
    gain = compare(model, popular).differences["recall@50"]
    assert gain.low is not None
    assert gain.low > 0.03
