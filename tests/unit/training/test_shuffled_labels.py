"""Random labels: nothing but popularity can be learned from them."""

from pathlib import Path

import torch

from retrieval.evaluation.comparison import compare
from retrieval.evaluation.measurements import Measurements
from retrieval.stages.recipe import parse_recipe
from retrieval.stages.run import open_run
from retrieval.training.examples import TrainingEvents


def test_labels_are_those_of_other_training_events_and_histories_stay() -> None:
    # Users of 4 events; the last of each is no training event, and its item (9) no label.
    items = torch.tensor([0, 1, 2, 9] * 50, dtype=torch.int32)
    events = TrainingEvents(items, torch.arange(200), torch.arange(50) * 4, torch.full((50,), 3))
    shuffled = events.with_shuffled_labels(7)
    every = torch.arange(200)
    assert (shuffled.items == items).all()
    assert torch.bincount(shuffled.targets(every)).tolist() == torch.bincount(items).tolist()
    assert (shuffled.targets(every[3::4]) == 9).all()
    hidden = torch.zeros(200, dtype=torch.bool)
    hidden[3::4] = True
    assert not (shuffled.targets(every[~hidden]) == 9).any()
    assert 0.2 < float((shuffled.targets(every[~hidden]) == items[~hidden]).float().mean()) < 0.45
    assert (shuffled.targets(every) == events.with_shuffled_labels(7).targets(every)).all()
    assert (shuffled.targets(every) != events.with_shuffled_labels(8).targets(every)).any()
    assert (events.targets(every) == items).all()


def measured(folder: Path, model: dict, labels: str = "true") -> Measurements:
    recipe = {
        "generate": {
            "users": 1500,
            "items": 200,
            "days": 30,
            "catalog": {"categories": 5, "subcategories": 4, "new_items": 0},
            "behaviour": {"events_per_user": 20, "interests": 2},
        },
        "data": {
            "name": "generated",
            "interactions": {"path": "generated/interactions", "kind": ""},
            "items": {"path": "generated/items.parquet", "categories": "categories"},
        },
        "model": model,
        "train": {
            "steps": 150,
            "validate_every": 50,
            "examples": {"batch_size": 32, "labels": labels},
            "loss": {"negatives": 128},
            "optimizer": {"learning_rate": 0.005},
        },
        "recall": {"n": 50, "filter_seen": False},
        "machine": {"threads": 1},
    }
    found = open_run(parse_recipe(recipe, "labels.toml"), folder).measurements
    return Measurements.read(found.file)


def test_a_model_of_random_labels_scores_like_popularity(tmp_path: Path) -> None:
    encoder = {"name": "youtube-dnn", "dimension": 16, "history": 20}
    popular = measured(tmp_path, {"name": "popular"})
    random, true = (measured(tmp_path, encoder, labels) for labels in ("shuffled", "true"))
    against = compare(random, popular).differences["recall@50"]
    assert against.low - 0.02 < 0 < against.high + 0.02
    assert compare(true, popular).differences["recall@50"].low > 0.05
