"""Two systems on the same users: paired differences, corrected for the number of metrics, slice by slice, and what could be seen at all."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import polars as pl
from pydantic import Field

from retrieval.core.errors import DataContractError
from retrieval.core.settings import Settings
from retrieval.evaluation.beyond import paired
from retrieval.evaluation.bootstrap import Bootstrap, Interval, Values
from retrieval.evaluation.certainty import detectable, detectable_sentence, holm, p_values
from retrieval.evaluation.measurements import Measurements, common_users, matrix, metric_columns, paired_users
from retrieval.evaluation.settings import EvaluationSettings
from retrieval.evaluation.slices import target_column

_BLOCK: Final = 1 << 18
Tested = dict[str, tuple[Interval, float | None]]
"""By name a difference and its p."""


class Difference(Interval):
    """A paired difference with its bootstrap interval. `p`: of the paired t test. `adjusted`: corrected for many metrics by Holm."""

    p: float | None = None
    adjusted: float | None = None


class Comparison(Settings):
    """One system against another over the users both were measured on: first minus second.

    The primary metric was named before and is tested alone; the others are corrected together (Holm 1979). `detectable`: the
    smallest true difference that these users show with the chance `power`.
    """

    users: int
    differences: dict[str, Difference]
    detectable: dict[str, float] = Field(default_factory=dict)
    confidence: float = 0.95
    power: float = 0.8

    def higher(self, metric: str) -> bool | None:
        """Whether the first is surely higher (True) or lower (False) after correction; None when neither is sure (or there is no value).

        Higher is better for every metric but those of `settings.LOWER_IS_BETTER` and `NEITHER_IS_BETTER`.
        """
        found = self.differences.get(metric)
        if found is None or found.mean is None or found.low is None or found.high is None or found.low <= 0.0 <= found.high:
            return None
        if found.adjusted is not None and found.adjusted > 1.0 - self.confidence:
            return None
        return found.mean > 0.0

    def detectable_in_words(self, metric: str) -> str:
        """One sentence on the smallest difference of a metric that this pair could show; empty where it is not known."""
        found = self.detectable.get(metric)
        return "" if found is None else detectable_sentence(metric, found, self.power)


class SliceComparison(Settings):
    """The comparison inside one slice; `few` as in Slice."""

    dimension: str
    value: str
    users: int
    few: bool
    differences: dict[str, Difference]


def compare(first: Measurements, second: Measurements) -> Comparison:
    """Paired differences (first minus second) with bootstrap intervals over the common users and metrics.

    Pairing removes what both systems owe to the user, so a small difference can be sure where the two intervals overlap. Coverage
    and Gini, which are no means over users, have the interval of the paired jackknife where both were measured on the same users.

    Raises:
        DataContractError: no common user or metric, or user ids of different types.
    """
    columns = [name for name in metric_columns(first.per_user) if name in second.per_user.columns]
    if not columns:
        raise DataContractError("the two systems have no metric in common", remedy="measure both with the same cutoffs")
    mine, theirs = paired_users(first.per_user, second.per_user)
    settings = first.summary.settings
    bootstrap = Bootstrap(len(columns), settings.resamples, settings.seed)
    for start in range(0, len(mine), _BLOCK):
        bootstrap.add(matrix(mine[start : start + _BLOCK], columns) - matrix(theirs[start : start + _BLOCK], columns))
    errors = dict(zip(columns, bootstrap.standard_errors(), strict=True))
    return Comparison(
        users=len(mine),
        differences=_differences(bootstrap, columns, settings, _overall(first, second, settings.confidence)),
        detectable=detectable(errors, settings.confidence, settings.power),
        confidence=settings.confidence,
        power=settings.power,
    )


def _overall(first: Measurements, second: Measurements, confidence: float) -> Tested:
    """Differences of what all lists have together."""
    if not first.per_user["user_id"].equals(second.per_user["user_id"]):
        return {}
    mine, theirs = first.summary, second.summary
    found: Tested = {}
    for name in mine.overall_without:
        one, other = (each.overall[name].mean for each in (mine, theirs)) if name in theirs.overall_without else (None, None)
        if one is not None and other is not None:
            found[name] = paired(one - other, mine.overall_without[name], theirs.overall_without[name], confidence)
    return found


def corrected(comparisons: Sequence[Comparison], primary: str) -> list[Comparison]:
    """Several systems beside one are several tests: p values are corrected over all of them, the deciding metric's by itself (Holm)."""
    if len(comparisons) == 1:
        return list(comparisons)
    tests = {(place, name): found.p for place, one in enumerate(comparisons) for name, found in one.differences.items()}
    adjusted: dict[tuple[int, str], float | None] = {}
    for deciding in (True, False):
        family = {f"{place} {name}": p for (place, name), p in tests.items() if (name == primary) is deciding}
        corrected = holm(family, "")
        adjusted |= {key: corrected[f"{key[0]} {key[1]}"] for key in tests if (key[1] == primary) is deciding}
    return [
        one.model_copy(
            update={
                "differences": {
                    name: found.model_copy(update={"adjusted": adjusted[place, name]}) for name, found in one.differences.items()
                }
            }
        )
        for place, one in enumerate(comparisons)
    ]


def compare_slices(first: Measurements, second: Measurements) -> list[SliceComparison]:
    """The comparison in every slice of the first system's users, by the slices' metrics, and of its targets, by their recall.

    Nothing where users have no slices, as in the mean over runs. p values are corrected over all slices of a dimension together. Errors
    as in `compare`.
    """
    settings, slices = first.summary.settings, first.summary.slices
    if first.slices.is_empty() or second.slices.is_empty():
        return []
    both = common_users(first.per_user, second.per_user)
    parts = common_users(first.slices, second.slices).join(both.select("user_id"), on="user_id", how="right", maintain_order="right")
    found: list[tuple[str, str, list[str], Values]] = []
    for each in slices:
        if each.about == "targets":
            name = target_column(each.dimension, each.value)
            if f"{name}_second" in parts.columns:
                found.append((each.dimension, each.value, list(each.metrics), matrix(parts, [name]) - matrix(parts, [f"{name}_second"])))
        elif each.dimension in parts.columns:
            metrics = [name for name in each.metrics if f"{name}_second" in both.columns]
            inside = (parts[each.dimension].cast(pl.String) == each.value).fill_null(value=False).to_numpy()
            values = matrix(both, metrics) - matrix(both, [f"{name}_second" for name in metrics])
            found.append((each.dimension, each.value, metrics, np.where(inside[:, None], values, np.nan)))
    return _sliced(found, settings)


def _sliced(found: Sequence[tuple[str, str, list[str], Values]], settings: EvaluationSettings) -> list[SliceComparison]:
    result: list[SliceComparison] = []
    for dimension in dict.fromkeys(name for name, *_ in found):
        members = [each for each in found if each[0] == dimension]
        columns = [f"{place} {metric}" for place, (_, _, metrics, _) in enumerate(members) for metric in metrics]
        bootstrap = _paired(np.concatenate([values for *_, values in members], axis=1), settings)
        differences = _differences(bootstrap, columns, settings)
        for place, (_, value, metrics, values) in enumerate(members):
            users = int((~np.isnan(values)).any(axis=1).sum())
            own = {metric: differences[f"{place} {metric}"] for metric in metrics}
            few = users < settings.slices.least_users
            if users:
                result.append(SliceComparison(dimension=dimension, value=value, users=users, few=few, differences=own))
    return result


def _paired(values: Values, settings: EvaluationSettings) -> Bootstrap:
    bootstrap = Bootstrap(values.shape[1], settings.resamples, settings.seed)
    bootstrap.add(values)
    return bootstrap


def _differences(
    bootstrap: Bootstrap, columns: Sequence[str], settings: EvaluationSettings, others: Tested | None = None
) -> dict[str, Difference]:
    """Of the columns, and of others whose intervals are known, all corrected together."""
    found = bootstrap.intervals(settings.confidence)
    errors, users = bootstrap.standard_errors().tolist(), bootstrap.users.tolist()
    values = p_values([each.mean for each in found], errors, users)
    tested: Tested = {**dict(zip(columns, zip(found, values, strict=True), strict=True)), **(others or {})}
    adjusted = holm({name: p for name, (_, p) in tested.items()}, settings.primary)
    return {name: Difference(**each.model_dump(), p=p, adjusted=adjusted[name]) for name, (each, p) in tested.items()}
