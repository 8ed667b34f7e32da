"""Every fold is a run of its own, trained on what came before it."""

from pathlib import Path

import numpy as np
import pytest

from retrieval.core.errors import DataContractError
from retrieval.stages.folds import fold_of, lines, run_folds
from retrieval.stages.recipe import parse_recipe
from retrieval.stages.run import open_run

DAY = 86_400


def popular(folder: Path, **split: object):
    recipe = {
        "generate": {"users": 150, "items": 80, "days": 20, "catalog": {"categories": 4, "subcategories": 2}},
        "data": {
            "name": "generated",
            "interactions": {"path": "generated/interactions", "kind": ""},
            "items": {"path": "generated/items.parquet", "categories": "categories"},
        },
        "split": {"valid_seconds": DAY, "test_seconds": 2 * DAY, **split},
        "model": {"name": "popular"},
        "evaluate": {"resamples": 50},
    }
    return open_run(parse_recipe(recipe, "folds.toml"), folder)


def test_folds_follow_one_another_and_are_summed_up(tmp_path: Path) -> None:
    pipeline = popular(tmp_path)
    found = run_folds(pipeline, 3)
    runs = [fold_of(pipeline, number) for number in (3, 2, 1)]
    cuts = [run.dataset_artifact.summary["split"]["may_know"]["test"] for run in runs]
    assert len(set(cuts)) == 3
    trained = [run.dataset.split.train_end for run in runs]
    assert (trained[0] <= trained[1]).all()
    assert trained[0].sum() < trained[1].sum() < trained[2].sum()
    ends = [run.dataset.split.test_end for run in runs]
    starts = [run.dataset.split.test_start for run in runs]
    assert (ends[0] == starts[1]).all()
    assert (ends[1] == starts[2]).all()
    assert np.array_equal(ends[2], runs[2].dataset.sequences.lengths)
    means = [run.measurements.summary["metrics"]["recall@50"]["mean"] for run in runs]
    metric = found.summary["metrics"]["recall@50"]
    assert metric["folds"] == pytest.approx(means)
    assert metric["over_users"]["mean"] == pytest.approx(np.mean(means))
    assert all(run.measurements.summary["leaks"]["kinds"] == 0 for run in runs)
    assert lines(found)[0].endswith("folds, oldest first")


def test_a_fold_more_costs_only_itself(tmp_path: Path) -> None:
    run_folds(popular(tmp_path), 2)
    again = popular(tmp_path)
    run_folds(again, 3)
    made = {record.stage for record in again.stages.records if not record.skipped}
    assert {"fold-3:prepare", "fold-3:train", "folds"} <= made
    assert not any(stage.startswith(("fold-1:", "fold-2:")) for stage in made)


def test_a_log_that_is_too_short_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    pipeline = popular(tmp_path)
    with pytest.raises(DataContractError, match="run fewer folds"):
        run_folds(pipeline, 20)
    assert not (tmp_path / "model").exists()
