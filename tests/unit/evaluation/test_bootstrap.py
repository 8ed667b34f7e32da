"""Intervals: exact against a plain loop over the same draws, and right about a mean that is known."""

import numpy as np
import pytest
from scipy import stats

from retrieval.core.seeds import derive_seed
from retrieval.evaluation import bootstrap
from retrieval.evaluation.bootstrap import Bootstrap, intervals, poisson_table
from retrieval.evaluation.list_kernels import draw_weights


def interval(values, *, resamples=200, confidence=0.95, seed=0):
    return intervals(np.asarray(values, np.float64), resamples=resamples, confidence=confidence, seed=seed)


def weights(n_users, resamples, seed, first=0):
    drawn = np.empty((resamples, n_users), np.float32)
    draw_weights(0, resamples, first, derive_seed(seed, "bootstrap"), poisson_table(), drawn)
    return drawn


def test_the_same_seed_gives_the_same_interval_and_another_does_not():
    values = np.random.default_rng(1).random((50, 2))
    assert interval(values) == interval(values)
    assert interval(values) != interval(values, seed=1)


@pytest.mark.parametrize("cells", [1 << 22, 400])
def test_equals_a_loop_that_repeats_users(monkeypatch, cells):
    monkeypatch.setattr(bootstrap, "_CELLS", cells)
    rng = np.random.default_rng(2)
    values = rng.random((23, 3)) ** 3
    values[rng.random((23, 3)) < 0.3] = np.nan
    drawn = weights(23, 40, 5).astype(int)
    for column, found in enumerate(interval(values, resamples=40, confidence=0.9, seed=5)):
        means = []
        for row in drawn:
            sample = [value for value, times in zip(values[:, column], row, strict=True) for _ in range(times)]
            means.append(np.nanmean(sample))
        known = values[:, column][~np.isnan(values[:, column])]
        assert found.mean == pytest.approx(known.mean())
        assert (found.low, found.high) == pytest.approx(bca_by_the_book(known, np.array(means), 0.9), abs=1e-6)


def bca_by_the_book(values, means, confidence):
    """Efron and Tibshirani 1993, section 14.3: bias from the share below, acceleration from the jackknife."""
    bias = stats.norm.ppf((means < values.mean()).mean())
    left_out = np.array([np.delete(values, place).mean() for place in range(len(values))])
    pull = left_out.mean() - left_out
    acceleration = (pull**3).sum() / (6 * (pull**2).sum() ** 1.5)
    ends = []
    for level in ((1 - confidence) / 2, (1 + confidence) / 2):
        reach = bias + stats.norm.ppf(level)
        ends.append(np.quantile(means, stats.norm.cdf(bias + reach / (1 - acceleration * reach))))
    return tuple(ends)


def test_agrees_with_scipy():
    values = np.random.default_rng(3).random(400) ** 4
    found = interval(values[:, None], resamples=20_000)[0]
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(0)).confidence_interval
    width = theirs.high - theirs.low
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.03 * width)


def test_blocks_do_not_matter():
    values = np.random.default_rng(4).random((101, 2))
    values[::7, 1] = np.nan
    whole, parts = Bootstrap(2, 50, 0), Bootstrap(2, 50, 0, threads=3)
    whole.add(values)
    for start, stop in ((0, 1), (1, 6), (6, 6), (6, 50), (50, 101)):
        parts.add(values[start:stop])
    for one, other in zip(whole.intervals(0.9), parts.intervals(0.9), strict=True):
        assert (one.mean, one.low, one.high) == pytest.approx((other.mean, other.low, other.high), abs=1e-6)
    assert parts.users.tolist() == [101, 86]
    expected = [values[:, column][~np.isnan(values[:, column])] for column in range(2)]
    assert parts.standard_errors() == pytest.approx([each.std(ddof=1) / np.sqrt(len(each)) for each in expected])


def test_draws_are_those_of_independent_poissons():
    drawn = weights(10, 20_000, 1)
    assert drawn.mean(axis=0) == pytest.approx(np.ones(10), abs=0.03)
    covariance = np.cov(drawn.T)
    assert np.diag(covariance) == pytest.approx(np.ones(10), abs=0.05)
    assert covariance[~np.eye(10, dtype=bool)] == pytest.approx(np.zeros(90), abs=0.03)
    shares = np.bincount(drawn.astype(int).ravel(), minlength=9) / drawn.size
    assert shares[:9] == pytest.approx(stats.poisson.pmf(np.arange(9), 1), abs=0.005)
    # A user's weights depend on the place alone, wherever a block begins.
    assert (weights(7, 5, 1, first=3) == weights(10, 5, 1)[:, 3:]).all()


@pytest.mark.parametrize(("share", "users"), [(0.4, 80), (0.05, 300)])
def test_covers_the_mean_as_often_as_promised(share, users):
    rng = np.random.default_rng(7)
    samples = rng.random((1_000, users)) < share
    found = [interval(sample[:, None], resamples=400, seed=number)[0] for number, sample in enumerate(samples)]
    covered = np.mean([each.low <= share <= each.high for each in found])
    assert 0.93 <= covered <= 0.975


def test_width_shrinks_with_the_root_of_the_users():
    rng = np.random.default_rng(8)
    few, many = (interval(rng.random((size, 1)), resamples=500)[0] for size in (200, 3200))
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(4.0, rel=0.2)


def test_no_value_gives_none_and_one_user_gives_a_point():
    nothing, point = interval([[np.nan, 0.5]])
    assert (nothing.mean, nothing.low, nothing.high) == (None, None, None)
    assert (point.mean, point.low, point.high) == (0.5, 0.5, 0.5)


def test_equal_values_are_a_point():
    found = interval(np.full((1_000, 1), 0.1))[0]
    assert (found.mean, found.low, found.high) == (0.1, 0.1, 0.1)


def test_a_resample_without_a_value_is_left_out():
    # About a third of the resamples of three users miss the only one with a value.
    found = interval([[0.25], [np.nan], [np.nan]])[0]
    assert (found.mean, found.low, found.high) == (0.25, 0.25, 0.25)
