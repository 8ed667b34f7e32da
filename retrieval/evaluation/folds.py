"""One figure of several folds: the mean over them, how sure it is over users, and how sure over folds."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from pydantic import Field
from scipy.special import stdtrit

from retrieval.core.errors import UsageError
from retrieval.core.settings import Settings
from retrieval.evaluation.bootstrap import Interval, intervals
from retrieval.evaluation.measurements import Measurements


class FoldedMetric(Settings):
    """A metric over folds.

    `over_users`: the mean of the folds' means; its interval is that of drawing other users, each with all of their folds.
    `over_folds`: the same mean with Student's t interval over the folds' means; no ends for a single fold.
    """

    folds: tuple[float | None, ...]
    over_users: Interval
    over_folds: Interval


class FoldedSummary(Settings):
    """Every metric over folds, and how many users they were measured on, counted once and by fold."""

    metrics: dict[str, FoldedMetric] = Field(default_factory=dict)
    users: int
    users_of_folds: tuple[int, ...]


def over_folds(folds: Sequence[Measurements]) -> FoldedSummary:
    """The metrics of all folds together.

    The mean of folds is no mean over users, so what is drawn is each user's share in it, to first order (the infinitesimal
    jackknife, Efron 1982): U/F times the sum over the user's folds of (value - mean of the fold) / (users of the fold), plus the
    mean. A user of several folds is one draw.

    Raises:
        UsageError: no folds, or folds without a common metric.
    """
    names = [name for name in folds[0].per_user.columns if all(name in fold.per_user.columns for fold in folds)] if folds else []
    metrics = [name for name in names if name != "user_id"]
    if not metrics:
        raise UsageError("folds have no metric in common", where="folds", remedy="measure all of them with the same settings")
    means = [_means(fold.per_user, metrics) for fold in folds]
    shares = _shares(folds, metrics, means)
    whole = {name: _mean([found[name] for found in means]) for name in metrics}
    values = np.stack([shares[name].to_numpy() + whole[name] for name in metrics], axis=1)
    settings = folds[0].summary.settings
    drawn = intervals(values, resamples=settings.resamples, confidence=settings.confidence, seed=settings.seed)
    return FoldedSummary(
        metrics={
            name: _metric([found[name] for found in means], over_users, settings.confidence)
            for name, over_users in zip(metrics, drawn, strict=True)
        },
        users=shares.height,
        users_of_folds=tuple(fold.per_user.height for fold in folds),
    )


def _means(per_user: pl.DataFrame, metrics: Sequence[str]) -> dict[str, float]:
    found = per_user.select(pl.col(metrics).cast(pl.Float64).mean()).row(0)
    return {name: math.nan if value is None else value for name, value in zip(metrics, found, strict=True)}


def _shares(folds: Sequence[Measurements], metrics: Sequence[str], means: Sequence[Mapping[str, float]]) -> pl.DataFrame:
    """What each user adds to the mean of the folds, times the number of users: user_id and a column a metric."""
    parts = []
    for fold, mean in zip(folds, means, strict=True):
        own = [((pl.col(name).cast(pl.Float64) - mean[name]) / pl.col(name).count() / len(folds)).fill_null(0.0) for name in metrics]
        parts.append(fold.per_user.select("user_id", *own))
    summed = pl.concat(parts).group_by("user_id").sum().sort("user_id")
    return summed.with_columns(pl.col(metrics) * summed.height)


def _metric(means: Sequence[float], over_users: Interval, confidence: float) -> FoldedMetric:
    folds, mean = len(means), _mean(means)
    if folds < 2 or math.isnan(mean):
        return FoldedMetric(folds=tuple(map(_known, means)), over_users=over_users, over_folds=Interval(mean=_known(mean)))
    spread = math.sqrt(sum((value - mean) ** 2 for value in means) / (folds - 1))
    reach = float(stdtrit(folds - 1, (1 + confidence) / 2)) * spread / math.sqrt(folds)
    return FoldedMetric(folds=tuple(means), over_users=over_users, over_folds=Interval(mean=mean, low=mean - reach, high=mean + reach))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
