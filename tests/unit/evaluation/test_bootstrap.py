"""Intervals: exact against a plain loop over the same draws, and right about a mean that is known."""

import numpy as np
import pytest

from retrieval.evaluation import bootstrap
from retrieval.evaluation.bootstrap import intervals


def interval(values, *, resamples=200, confidence=0.95, seed=0):
    return intervals(np.asarray(values, np.float64), resamples=resamples, confidence=confidence, seed=seed)


def counts(n_users, resamples, seed):
    return np.concatenate([weights for _, weights in bootstrap._resampled_counts(n_users, resamples, seed)], axis=1)


def test_the_same_seed_gives_the_same_interval_and_another_does_not():
    values = np.random.default_rng(1).random((50, 2))
    assert interval(values) == interval(values)
    assert interval(values) != interval(values, seed=1)


@pytest.mark.parametrize("cells", [1 << 22, 400])
def test_equals_a_loop_that_repeats_users(monkeypatch, cells):
    monkeypatch.setattr(bootstrap, "_CELLS", cells)
    rng = np.random.default_rng(2)
    values = rng.random((23, 3))
    values[rng.random((23, 3)) < 0.3] = np.nan
    drawn = counts(23, 40, 5).astype(int)
    assert (drawn.sum(axis=1) == 23).all()
    for column, found in enumerate(interval(values, resamples=40, confidence=0.9, seed=5)):
        means = []
        for weights in drawn:
            sample = [value for value, times in zip(values[:, column], weights, strict=True) for _ in range(times)]
            means.append(np.nanmean(sample))
        assert found.mean == pytest.approx(np.nanmean(values[:, column]))
        assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.05, 0.95])))


def test_draws_are_those_of_a_multinomial(monkeypatch):
    monkeypatch.setattr(bootstrap, "_CELLS", 20_000)
    drawn = counts(10, 5_000, 1)
    # Every count is Binomial(10, 1/10), and two users of different blocks are as dependent as two of one block.
    assert drawn.mean(axis=0) == pytest.approx(np.ones(10), abs=0.06)
    covariance = np.cov(drawn.T)
    assert np.diag(covariance) == pytest.approx(np.full(10, 0.9), abs=0.1)
    assert covariance[~np.eye(10, dtype=bool)] == pytest.approx(np.full(90, -0.1), abs=0.06)


def test_covers_the_mean_about_as_often_as_promised():
    rng = np.random.default_rng(7)
    samples = rng.random((300, 80)) < 0.4
    found = [interval(sample[:, None], resamples=200, confidence=0.9, seed=number)[0] for number, sample in enumerate(samples)]
    covered = np.mean([each.low <= 0.4 <= each.high for each in found])
    assert 0.84 <= covered <= 0.95


def test_width_shrinks_with_the_root_of_the_users():
    rng = np.random.default_rng(8)
    few, many = (interval(rng.random((size, 1)), resamples=500)[0] for size in (200, 3200))
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(4.0, rel=0.2)


def test_no_value_gives_none_and_one_user_gives_a_point():
    nothing, point = interval([[np.nan, 0.5]])
    assert (nothing.mean, nothing.low, nothing.high) == (None, None, None)
    assert (point.mean, point.low, point.high) == (0.5, 0.5, 0.5)


def test_a_resample_without_a_value_is_left_out():
    # About a third of the resamples of three users miss the only one with a value.
    found = interval([[0.25], [np.nan], [np.nan]])[0]
    assert (found.mean, found.low, found.high) == (0.25, 0.25, 0.25)
