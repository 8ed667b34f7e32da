"""Item fields: what they hold may not come from hidden events."""

from collections.abc import Iterator, Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrieval.evaluation.leaks.abstract import AbstractCheck
from retrieval.evaluation.leaks.dates import dated_fields
from retrieval.evaluation.leaks.findings import Finding

Values = NDArray[np.float64]
_PERFECT = 1 - 1e-9


class Fields(AbstractCheck):
    """No item field is computed from hidden events, or dated after the end of training.

    A field is from the future where it follows a figure of all events (their number, the time of the last one, their mean
    weight) nearly perfectly, and better than it follows the same figure of the training events, on the items where the two
    differ: by rank, so that logarithms, shares, places and buckets of a count are found as well as the count. Dates that
    are later than training are found where they stand at items that training has met.
    """

    kinds = ("field-from-future", "field-dated-after-cut")
    _LEAST_ITEMS, _LEAST_CORRELATION, _LEAST_GAIN = 20, 0.98, 0.002

    def applies(self, kind: str) -> bool:
        return bool(self._numbers()) if kind == "field-from-future" else any(True for _ in dated_fields(self.evidence))

    def findings(self) -> Iterator[Finding]:
        figures = self._figures() if self._numbers() else {}
        for name in self._numbers():
            values = self.evidence.fields[name].cast(pl.Float64).to_numpy()
            yield from self._computed(name, values, figures)
        for name, moments in dated_fields(self.evidence):
            yield from self._dated(name, moments)

    def _numbers(self) -> list[str]:
        return [name for name, dtype in self.evidence.fields.schema.items() if dtype.is_numeric()]

    def _figures(self) -> dict[str, tuple[Values, Values]]:
        """By name, of the training events and of all; NaN where an item has none."""
        trained, overall = self.evidence.trained, self.evidence.overall
        found = {"the number of events": (trained.counts.astype(np.float64), overall.counts.astype(np.float64))}
        last = [np.where(each.counts > 0, each.last, np.nan) for each in (trained, overall)]
        found["the time of the last event"] = (last[0], last[1])
        if trained.weights is not None and overall.weights is not None:
            means = [each.weights / np.where(each.counts > 0, each.counts, np.nan) for each in (trained, overall)]
            found["the mean weight of the events"] = (means[0], means[1])
        return found

    def _computed(self, name: str, values: Values, figures: Mapping[str, tuple[Values, Values]]) -> Iterator[Finding]:
        for figure, (trained, overall) in figures.items():
            told = np.isfinite(values) & np.isfinite(overall) & np.isfinite(trained) & (trained != overall)
            if told.sum() < self._LEAST_ITEMS:
                continue
            follows, should = _alike(values[told], overall[told]), _alike(values[told], trained[told])
            if follows >= self._LEAST_CORRELATION and follows - should > (0.0 if follows > _PERFECT else self._LEAST_GAIN):
                where = (
                    f"{_field(name)}: it follows {figure} of the whole log (rank correlation {follows:.3f}; {should:.3f} with training's)"
                )
                item = int(np.flatnonzero(told)[np.argmax(np.abs(overall[told] - trained[told]))])
                example = f"item {self.evidence.items[item]!r}: {values[item]:g}; the log has {overall[item]:g}, training {trained[item]:g}"
                yield Finding(kind="field-from-future", where=where, rows=int(told.sum()), example=example)
                return

    def _dated(self, name: str, moments: Values) -> Iterator[Finding]:
        cuts = self.evidence.cuts
        assert cuts is not None  # noqa: S101 - without a cut no field is dated
        # What is later than twice the cut is a placeholder, such as the year 9999.
        told = (moments > cuts.valid_from) & (moments < 2 * cuts.valid_from) & (self.evidence.trained.counts > 0)
        if told.any():
            item = int(told.argmax())
            example = f"item {self.evidence.items[item]!r}: {moments[item]:.0f}, training ends before {cuts.valid_from}"
            yield Finding(kind="field-dated-after-cut", where=_field(name), rows=int(told.sum()), example=example)


def _alike(values: Values, figure: Values) -> float:
    """How large the rank correlation is (Spearman's, ties at their mean rank), 0 where either is constant.

    Its sign says nothing: places in a ranking fall as counts rise.
    """
    ranks = pl.DataFrame({"a": values, "b": figure}).select(pl.all().rank("average"))
    found = ranks.select(pl.corr("a", "b")).item()
    return 0.0 if found is None or np.isnan(found) else abs(float(found))


def _field(name: str) -> str:
    return f"item field {name.removeprefix('field_')}"
