"""Several folds, one figure."""

import numpy as np
import polars as pl
import pytest

from retrieval.core.errors import UsageError
from retrieval.evaluation.folds import over_folds
from retrieval.evaluation.measurements import Measurements, summarise
from retrieval.evaluation.settings import EvaluationSettings

SETTINGS = EvaluationSettings(resamples=2000)


def measured(users: np.ndarray, values: np.ndarray | pl.Series) -> Measurements:
    frame = pl.DataFrame({"user_id": users, "recall@50": values})
    return Measurements(frame, summarise(frame, SETTINGS))


def test_the_mean_of_folds_counts_every_fold_alike() -> None:
    found = over_folds([measured(np.arange(4), np.array([0.0, 0.0, 1.0, 1.0])), measured(np.arange(2), np.array([1.0, 1.0]))])
    metric = found.metrics["recall@50"]
    assert metric.folds == (0.5, 1.0)
    assert metric.over_users.mean == pytest.approx(0.75)
    assert metric.over_folds.mean == pytest.approx(0.75)
    # Student's t of one degree of freedom at 0.975 is 12.706, the standard error 0.25.
    assert metric.over_folds.high - 0.75 == pytest.approx(12.7062 * 0.25, rel=1e-4)
    assert (found.users, found.users_of_folds) == (4, (4, 2))


def test_a_user_of_two_folds_is_one_draw() -> None:
    """The same values twice say no more than once; other users' values do."""
    rng = np.random.default_rng(1)
    values = rng.random(400)
    once = over_folds([measured(np.arange(400), values)]).metrics["recall@50"].over_users
    twice = over_folds([measured(np.arange(400), values)] * 2).metrics["recall@50"].over_users
    others = over_folds([measured(np.arange(400), values), measured(np.arange(400, 800), rng.random(400))]).metrics["recall@50"].over_users
    width = [each.high - each.low for each in (once, twice, others)]
    assert width[1] == pytest.approx(width[0], rel=1e-9)
    assert width[2] == pytest.approx(width[0] / 2**0.5, rel=0.1)


def test_the_interval_covers_the_mean_of_the_folds() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        taste = rng.normal(0, 1, 150)
        folds = []
        for truth in (0.2, 0.6):
            users = np.flatnonzero(rng.random(150) < 0.6)
            folds.append(measured(users, truth + taste[users] + rng.normal(0, 0.5, len(users))))
        found = over_folds(folds).metrics["recall@50"].over_users
        covered += found.low <= 0.4 <= found.high
    assert 180 <= covered <= 198


def test_users_without_a_value_are_left_out() -> None:
    first = measured(np.arange(3), pl.Series([0.5, None, 0.7]))
    found = over_folds([first, measured(np.arange(3), pl.Series([None, None, 0.2]))]).metrics["recall@50"]
    assert found.folds == (pytest.approx(0.6), 0.2)
    assert found.over_users.mean == pytest.approx(0.4)


def test_folds_need_a_common_metric() -> None:
    other = Measurements(pl.DataFrame({"user_id": [1], "hr@5": [1.0]}), measured(np.arange(1), np.ones(1)).summary)
    with pytest.raises(UsageError, match="no metric in common"):
        over_folds([measured(np.arange(1), np.ones(1)), other])
