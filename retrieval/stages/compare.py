"""compare: runs on the same users, figure by figure, slice by slice, user by user and list by list."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import polars as pl

from retrieval.core.durable import replace_text
from retrieval.core.errors import UsageError
from retrieval.core.settings import freed_of_secrets
from retrieval.evaluation.comparison import Comparison, Difference, SliceComparison, compare, compare_slices, corrected
from retrieval.evaluation.measurements import Measurements, MeasurementSummary, common_users
from retrieval.report.compare_page import compare_page
from retrieval.report.compared import CompareContent, ComparedSystem, MovedUser, Pair, SettingDifference, SliceRow
from retrieval.report.page import render_html
from retrieval.report.terminal import render_terminal
from retrieval.stages.compared_lists import common_share, sampled, side_by_side
from retrieval.stages.compared_runs import Run, open_runs
from retrieval.stages.report import moment_now

_TERMINAL = ("metrics", "settings", "slices", "users")


@dataclass(frozen=True)
class _Side:
    """A run and the summary of its measurements, by the settings of the first run; the values of users are read when they are asked
    for, so that those of two runs are in memory and never those of all.
    """

    run: Run
    summary: MeasurementSummary

    @property
    def name(self) -> str:
        return self.run.name

    @property
    def measured(self) -> Measurements:
        return replace(self.run.measurements, summary=self.summary)


def compare_runs(handles: Sequence[str], workspace: Path, users: int = 5, top: int = 10) -> CompareContent:
    """Everything that can be said of some runs; `users` who gained and lost most, the first `top` items of their lists.

    Raises:
        UsageError: a handle names no run, or the runs were measured on different users.
        DataContractError: they have no metric in common. IntegrityError: an artifact is gone or damaged.
    """
    sides = _sides(open_runs(handles, workspace))
    settings = sides[0].summary.settings
    comparisons = corrected([compare(other.measured, sides[0].measured) for other in sides[1:]], settings.primary)
    content = CompareContent(
        title=" and ".join(side.name for side in sides) if len(sides) == 2 else ", ".join(side.name for side in sides),
        created=moment_now(),
        primary=settings.primary,
        confidence=settings.confidence,
        users=sides[0].summary.counts["users"],
        systems=tuple(_system(side) for side in sides),
        pairs=tuple(_pair(sides[0], other, found, users, top) for other, found in zip(sides[1:], comparisons, strict=True)),
        settings=tuple(_settings([side.run for side in sides])),
        slices=tuple(_slices(sides)),
    )
    return freed_of_secrets(content)


def _sides(runs: Sequence[Run]) -> list[_Side]:
    """Runs with the summaries of their measurements, all to be compared by the settings of the first."""
    summaries = [run.summary for run in runs]
    settings = summaries[0].settings
    for run, found in zip(runs, summaries, strict=True):
        if settings.primary not in found.metrics:
            what, remedy = f"'{run.name}' was not measured at {settings.primary}", "give both recipes the same evaluate.cutoffs"
            raise UsageError(what, where="compare", expected=f"the deciding figure of '{runs[0].name}'", remedy=remedy)
    return [_Side(run, found.model_copy(update={"settings": settings})) for run, found in zip(runs, summaries, strict=True)]


def comparison_text(content: CompareContent) -> str:
    """The comparison for a terminal."""
    return render_terminal(compare_page(content), _TERMINAL)


def write_comparison(content: CompareContent, path: Path) -> None:
    """The comparison as one HTML page, whole or not at all. Raises ResourceError when it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, render_html(compare_page(content)))


def _system(side: _Side) -> ComparedSystem:
    summary, artifact = side.summary, side.run.artifact
    return ComparedSystem(name=side.name, artifact=f"{artifact.kind}/{artifact.id}", metrics=summary.metrics, overall=summary.overall)


def _settings(runs: Sequence[Run]) -> Iterator[SettingDifference]:
    """Settings that at least two runs do not share, in the order of the pipeline."""
    found = [run.settings() for run in runs]
    for name in dict.fromkeys(name for one in found for name in one):
        values = tuple(_text(one.get(name)) for one in found)
        if len(set(values)) > 1:
            yield SettingDifference(name=name, values=values)


def _text(value: Any) -> str | None:
    return None if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _slices(sides: Sequence[_Side]) -> Iterator[SliceRow]:
    """Every slice that all runs have, with the winner of all pairs."""
    pairs = {
        (one, other): {(found.dimension, found.value): found for found in compare_slices(sides[other].measured, sides[one].measured)}
        for one, other in combinations(range(len(sides)), 2)
    }
    for (dimension, value), found in pairs[0, 1].items():
        each = {pair: of.get((dimension, value)) for pair, of in pairs.items()}
        metric = _deciding(found, sides[0].summary.settings.primary)
        means = {side.name: interval for side in sides if (interval := _slice_mean(side, dimension, value, metric)) is not None}
        first = {sides[other].name: one.differences[metric] for (against, other), one in each.items() if against == 0 and one is not None}
        row = SliceRow(dimension=dimension, value=value, users=found.users, few=found.few, metric=metric, means=means, differences=first)
        yield row.model_copy(update={"winner": _winner(sides, each, metric)})


def _deciding(found: SliceComparison, primary: str) -> str:
    return primary if primary in found.differences else next(iter(found.differences))


def _slice_mean(side: _Side, dimension: str, value: str, metric: str) -> Any:
    return next((one.metrics.get(metric) for one in side.summary.slices if (one.dimension, one.value) == (dimension, value)), None)


def _winner(sides: Sequence[_Side], found: Mapping[tuple[int, int], SliceComparison | None], metric: str) -> str | None:
    """The run that is surely better than each of the others."""
    confidence = sides[0].summary.settings.confidence
    beaten: dict[int, int] = {}
    for (one, other), comparison in found.items():
        difference = None if comparison is None else comparison.differences.get(metric)
        if difference is not None and (sure := _sign(difference, confidence)):
            best = other if sure > 0 else one
            beaten[best] = beaten.get(best, 0) + 1
    return next((sides[place].name for place, count in beaten.items() if count == len(sides) - 1), None)


def _sign(difference: Difference, confidence: float) -> int:
    """1 or -1 where a difference is sure."""
    better = Comparison(users=0, differences={"": difference}, confidence=confidence).higher("")
    return 0 if better is None else 1 if better else -1


def _pair(first: _Side, other: _Side, comparison: Comparison, users: int, top: int) -> Pair:
    primary = first.summary.settings.primary
    values = common_users(first.measured.per_user.select("user_id", primary), other.measured.per_user.select("user_id", primary))
    changes = values.drop_nulls().with_columns(change=pl.col(f"{primary}_second") - pl.col(primary)).sort("change", "user_id")
    moved = [MovedUser(user=user, first=one, other=two) for user, one, two, _ in changes.tail(users)[::-1].rows() if two > one]
    lost = [MovedUser(user=user, first=one, other=two) for user, one, two, _ in changes.head(users).rows() if two < one]
    gained_count, lost_count = int((changes["change"] > 0).sum()), int((changes["change"] < 0).sum())
    sample = sampled(values["user_id"], first.summary.settings.seed)
    n = first.summary.settings.primary_cutoff
    return Pair(
        name=other.name,
        comparison=comparison,
        gained=gained_count,
        lost=lost_count,
        same=len(changes) - gained_count - lost_count,
        common=common_share(first.run, other.run, sample, n),
        common_users=len(sample),
        most_gained=tuple(moved),
        most_lost=tuple(lost),
        lists=tuple(side_by_side(first.run, other.run, [*moved, *lost], n, top)),
    )
