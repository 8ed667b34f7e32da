"""Measurements of one system: a value per user per metric, and what follows from them."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field, ValidationError

from retrieval.core.artifacts import write_json
from retrieval.core.errors import DataContractError, IntegrityError
from retrieval.core.formats import ANOTHER_VERSION
from retrieval.core.settings import Settings
from retrieval.evaluation.bootstrap import Bootstrap, Interval, Values
from retrieval.evaluation.certainty import detectable, detectable_sentence
from retrieval.evaluation.contribution import InterestShare
from retrieval.evaluation.settings import EvaluationSettings
from retrieval.evaluation.slices import Slice
from retrieval.evaluation.tables import FrameWriter, read_table

SCHEMA_VERSION = 2
TABLES, SUMMARY = ("per_user.parquet", "slices.parquet"), "summary.json"


class MeasurementSummary(Settings):
    """Everything but the per-user values.

    `metrics`: means over users with intervals. `overall`: figures of all lists together, such as "coverage@50", with jackknife
    intervals; `overall_without`: the same without each of the jackknife's groups of users. `counts`: users,
    users_without_candidates, longest_list and the like. `interests`: what each interest brought. `slices`: parts of users and
    targets. `detectable`: the smallest difference of each metric that these users can show.
    """

    schema_version: int = SCHEMA_VERSION
    metrics: dict[str, Interval]
    overall: dict[str, Interval] = Field(default_factory=dict)
    overall_without: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    counts: dict[str, int]
    interests: tuple[InterestShare, ...] = ()
    slices: tuple[Slice, ...] = ()
    detectable: dict[str, float] = Field(default_factory=dict)
    settings: EvaluationSettings

    def detectable_in_words(self, metric: str) -> str:
        """One sentence on the smallest difference of a metric that these users can show; empty where it is not known."""
        found = self.detectable.get(metric)
        return "" if found is None else detectable_sentence(metric, found, self.settings.power)


@dataclass(frozen=True)
class Measurements:
    """`per_user`: user_id and one float64 column a metric ("recall@50"), null where the user has no value.

    `slices`: the same users, a column of names for each dimension of users, and for each part of targets the user's recall of
    these alone (`target_column`).
    """

    per_user: pl.DataFrame
    summary: MeasurementSummary
    slices: pl.DataFrame = field(default_factory=pl.DataFrame)

    @classmethod
    def read(cls, place: Callable[[str], Path]) -> "Measurements":
        """Read per_user.parquet, slices.parquet and summary.json from where `place` says they are, such as `Artifact.file`.

        Raises:
            IntegrityError: the summary is damaged or of another schema.
            DataContractError: a table cannot be read.
        """
        per_user, slices = (read_table([place(name)], None) for name in TABLES)
        return cls(per_user, read_summary(place(SUMMARY)), slices)

    def write(self, place: Callable[[str], Path]) -> None:
        """Write what `read` reads."""
        for name, table in zip(TABLES, (self.per_user, self.slices), strict=True):
            table.write_parquet(place(name))
        write_json(place(SUMMARY), self.summary.model_dump(mode="json"))


@contextmanager
def tables_in_blocks(place: Callable[[str], Path]) -> Iterator[Callable[..., None]]:
    """Gives what writes the tables a block of users at a time, as `Evaluation.run` hands them over."""
    with ExitStack() as stack:
        writers = [stack.enter_context(FrameWriter(place(name))) for name in TABLES]

        def write(*block: pl.DataFrame) -> None:
            for writer, frame in zip(writers, block, strict=True):
                writer.write(frame)

        yield write


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
        found, expected = f"schema version {values.get('schema_version')}", f"schema version {SCHEMA_VERSION}"
        raise IntegrityError(found, where=path, expected=expected, remedy=ANOTHER_VERSION)
    return values


def summarise(per_user: pl.DataFrame, settings: EvaluationSettings) -> MeasurementSummary:
    """Means, intervals and detectable differences of every metric column."""
    columns = metric_columns(per_user)
    bootstrap = Bootstrap(len(columns), settings.resamples, settings.seed)
    bootstrap.add(matrix(per_user, columns))
    errors = dict(zip(columns, bootstrap.standard_errors(), strict=True))
    return MeasurementSummary(
        metrics=dict(zip(columns, bootstrap.intervals(settings.confidence), strict=True)),
        counts={"users": len(per_user)},
        detectable=detectable(errors, settings.confidence, settings.power),
        settings=settings,
    )


def mean_over_runs(runs: Sequence[Measurements]) -> Measurements:
    """Each user's mean over runs of one system (training seeds), summarised again; the intervals are over users.

    A user who has no value in one run is left out of that run's share of the mean. Figures of all lists together
    ("coverage@50"), slices and interests belong to single runs and are not averaged.
    """
    means = pl.concat(run.per_user for run in runs).group_by("user_id", maintain_order=True).mean()
    first = runs[0].summary
    return Measurements(means, summarise(means, first.settings).model_copy(update={"counts": first.counts}))


def metric_columns(per_user: pl.DataFrame) -> list[str]:
    """Every column but the user's."""
    return [name for name in per_user.columns if name != "user_id"]


def matrix(frame: pl.DataFrame, columns: Sequence[str]) -> Values:
    """Columns as float64[U, M]; NaN where a user has no value."""
    return frame.select(pl.col(list(columns)).cast(pl.Float64).fill_null(float("nan"))).to_numpy()


def paired_users(first: pl.DataFrame, second: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Both tables with their common users only, in the first one's order; errors as `common_users`."""
    if first["user_id"].dtype == second["user_id"].dtype and first["user_id"].equals(second["user_id"]) and len(first):
        return first, second
    users = common_users(first.select("user_id"), second.select("user_id"))
    mine = first.join(users, on="user_id", how="semi", maintain_order="left")
    return mine, mine.select("user_id").join(second, on="user_id", how="left", maintain_order="left")


def common_users(first: pl.DataFrame, second: pl.DataFrame) -> pl.DataFrame:
    """Both tables side by side, the second's columns with `_second`, for the users of both.

    Raises:
        DataContractError: there is none, or ids are of different types.
    """
    if first["user_id"].dtype != second["user_id"].dtype:
        raise DataContractError(f"user ids are {first['user_id'].dtype} in one and {second['user_id'].dtype} in the other")
    both = first.join(second, on="user_id", how="inner", suffix="_second", maintain_order="left")
    if both.is_empty():
        raise DataContractError("the two systems were measured on no common user", remedy="use the same truth and split")
    return both
