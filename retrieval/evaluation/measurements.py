"""Measurements of one system: a value per user per metric, and what follows from them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import ValidationError

from retrieval.core.artifacts import write_json
from retrieval.core.errors import DataContractError, IntegrityError
from retrieval.core.settings import Settings
from retrieval.evaluation.bootstrap import Interval, intervals
from retrieval.evaluation.settings import EvaluationSettings
from retrieval.evaluation.tables import read_table

SCHEMA_VERSION = 1


class MeasurementSummary(Settings):
    """Everything but the per-user values.

    `metrics`: means over users with intervals. `overall`: figures of all lists together, such as "coverage@50".
    `counts`: users, users_without_candidates, longest_list and the like.
    """

    schema_version: int = SCHEMA_VERSION
    metrics: dict[str, Interval]
    overall: dict[str, float | None]
    counts: dict[str, int]
    settings: EvaluationSettings


@dataclass(frozen=True)
class Measurements:
    """`per_user`: user_id and one float64 column a metric ("recall@50"), null where the user has no value."""

    per_user: pl.DataFrame
    summary: MeasurementSummary

    def write(self, per_user: Path, summary: Path) -> None:
        """Write per_user.parquet and summary.json at the given paths."""
        self.per_user.write_parquet(per_user)
        write_json(summary, self.summary.model_dump(mode="json"))

    @classmethod
    def read(cls, per_user: Path, summary: Path) -> "Measurements":
        """Read what `write` wrote.

        Raises:
            IntegrityError: the summary is damaged or of another schema.
            DataContractError: the table cannot be read.
        """
        return cls(read_table([per_user], None), read_summary(summary))


class Comparison(Settings):
    """One system against another over the users both were measured on; a positive difference favours the first."""

    users: int
    differences: dict[str, Interval]

    def better(self, metric: str) -> bool | None:
        """True or False when the interval is clear of zero, None when it is not (or there is no value)."""
        found = self.differences.get(metric)
        if found is None or found.low is None or found.high is None or found.low <= 0.0 <= found.high:
            return None
        return found.low > 0.0


def read_summary(path: Path) -> MeasurementSummary:
    """Read summary.json. Raises IntegrityError when it is damaged or of another schema."""
    try:
        summary = MeasurementSummary.model_validate(_versioned(json.loads(path.read_text(encoding="utf-8")), path))
    except (OSError, ValueError, ValidationError) as error:
        raise IntegrityError(f"cannot be read: {type(error).__name__}", where=path, remedy="evaluate again") from None
    return summary


def _versioned(values: Any, path: Path) -> Mapping[str, Any]:
    if not isinstance(values, dict):
        raise IntegrityError("holds no table of values", where=path, remedy="evaluate again")
    if values.get("schema_version") != SCHEMA_VERSION:
        raise IntegrityError(f"schema version {values.get('schema_version')}", where=path, expected=str(SCHEMA_VERSION))
    return values


def summarise(per_user: pl.DataFrame, settings: EvaluationSettings) -> dict[str, Interval]:
    """Means and intervals of every metric column."""
    columns = [name for name in per_user.columns if name != "user_id"]
    found = intervals(_matrix(per_user, columns), resamples=settings.resamples, confidence=settings.confidence, seed=settings.seed)
    return dict(zip(columns, found, strict=True))


def mean_over_runs(runs: Sequence[Measurements]) -> Measurements:
    """Each user's mean over runs of one system (training seeds), summarised again; the intervals are over users.

    A user who has no value in one run is left out of that run's share of the mean. Figures of all lists together
    ("coverage@50") belong to single runs and are not averaged.
    """
    means = pl.concat(run.per_user for run in runs).group_by("user_id", maintain_order=True).mean()
    first = runs[0].summary
    metrics = summarise(means, first.settings)
    return Measurements(means, MeasurementSummary(metrics=metrics, overall={}, counts=first.counts, settings=first.settings))


def compare(first: Measurements, second: Measurements) -> Comparison:
    """Paired differences (first minus second) with bootstrap intervals over the common users and metrics.

    Pairing removes what both systems owe to the user, so a small difference can be sure where the two intervals overlap.

    Raises:
        DataContractError: no common user or metric, or user ids of different types.
    """
    columns = [name for name in first.per_user.columns if name != "user_id" and name in second.per_user.columns]
    if not columns:
        raise DataContractError("the two systems have no metric in common", remedy="measure both with the same cutoffs")
    both = _common_users(first.per_user, second.per_user)
    values = _matrix(both, columns) - _matrix(both, [f"{name}_second" for name in columns])
    settings = first.summary.settings
    found = intervals(values, resamples=settings.resamples, confidence=settings.confidence, seed=settings.seed)
    return Comparison(users=len(both), differences=dict(zip(columns, found, strict=True)))


def _common_users(first: pl.DataFrame, second: pl.DataFrame) -> pl.DataFrame:
    if first["user_id"].dtype != second["user_id"].dtype:
        raise DataContractError(f"user ids are {first['user_id'].dtype} in one and {second['user_id'].dtype} in the other")
    both = first.join(second, on="user_id", how="inner", suffix="_second", maintain_order="left")
    if both.is_empty():
        raise DataContractError("the two systems were measured on no common user", remedy="use the same truth and split")
    return both


def _matrix(frame: pl.DataFrame, columns: list[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return frame.select(pl.col(columns).cast(pl.Float64).fill_null(float("nan"))).to_numpy()
