"""From candidates and truth to measurements: every metric at every cut-off, in blocks of users."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from retrieval.evaluation.beyond import Exposure
from retrieval.evaluation.bootstrap import Bootstrap
from retrieval.evaluation.certainty import detectable
from retrieval.evaluation.contribution import Contribution
from retrieval.evaluation.facts import ItemFacts
from retrieval.evaluation.judgements import JudgedLists, judged_blocks
from retrieval.evaluation.labels import UserLabels
from retrieval.evaluation.measurements import Measurements, MeasurementSummary
from retrieval.evaluation.metrics import Knowledge, Metrics, pieces
from retrieval.evaluation.settings import EvaluationSettings
from retrieval.evaluation.slices import Slicer
from retrieval.evaluation.truth import GroundTruth

_PIECE: Final = 1 << 16
Sink = Callable[[pl.DataFrame, pl.DataFrame], None]
"""Takes of a block of users the values (user_id and the metrics), and what tells slices apart (see SlicedUsers)."""


def evaluate(
    candidates: Sequence[Path] | pl.DataFrame,
    truth: Path | GroundTruth,
    items: pl.DataFrame | ItemFacts | None,
    settings: EvaluationSettings,
    split: str | None = "test",
    labels: UserLabels | None = None,
) -> Measurements:
    """Measure candidates (columns user_id, item_id, rank or score) against the truth of a split.

    Without `items` only accuracy is measured: the other metrics need the catalog. `labels` slice the users.

    Raises:
        DataContractError: a file cannot be read or breaks its contract.
    """
    facts = ItemFacts.of(items, settings) if isinstance(items, pl.DataFrame) else items
    frames: list[tuple[pl.DataFrame, pl.DataFrame]] = []
    summary = Evaluation(settings, Knowledge.of(facts), labels).run(candidates, truth, split, lambda *block: frames.append(block))
    per_user, parts = (pl.concat(each) for each in zip(*frames, strict=True))
    return Measurements(per_user, summary, parts)


class Evaluation:
    """Measures block by block and gives the values of users away, so that memory does not grow with their number.

    knowledge: of items and histories. labels: of users, that slice them. Raises UsageError where the metric that decides needs to
    know more of the items.
    """

    def __init__(self, settings: EvaluationSettings, knowledge: Knowledge, labels: UserLabels | None = None, threads: int = 0) -> None:
        self.settings, self.metrics = settings, Metrics(settings, knowledge, threads)
        self.metrics.require_primary()
        self.facts, self.slicer = knowledge.facts, Slicer(settings, knowledge.facts, labels)
        width = len(self.metrics.columns) + len(self.slicer.columns)
        self._bootstrap = Bootstrap(width, settings.resamples, settings.seed, threads)
        self._exposure = None if self.facts is None else Exposure(len(self.facts.ids), settings.ascending, threads)
        self._contribution, self._counts = Contribution(settings.ascending), dict[str, int]()

    def run(
        self, candidates: Sequence[Path] | pl.DataFrame, truth: Path | GroundTruth, split: str | None, sink: Sink | None = None
    ) -> MeasurementSummary:
        """Measure all users of the truth; errors as in `evaluate`."""
        ids = None if self.facts is None else self.facts.ids
        for block in judged_blocks(candidates, truth, split, ids, self.settings, self.metrics.threads):
            self._count(block.counts)
            for judged in pieces(block, _PIECE):
                values = self._measure(judged)
                if sink is not None:
                    sink(*values)
        return self._summary()

    def _count(self, counts: dict[str, int]) -> None:
        for name, count in counts.items():
            together = max if name == "longest_list" else sum
            self._counts[name] = together((self._counts.get(name, 0), count))

    def _measure(self, judged: JudgedLists) -> tuple[pl.DataFrame, pl.DataFrame]:
        values = self.metrics.values(judged)
        sliced = self.slicer.of(judged, values, self.metrics.columns)
        self._bootstrap.add(np.concatenate([values, sliced.values], axis=1))
        self._contribution.add(judged)
        if self._exposure is not None:
            self._exposure.add(judged)
        columns = [pl.Series(name, values[:, place].copy(), nan_to_null=True) for place, name in enumerate(self.metrics.columns)]
        return pl.DataFrame([judged.users, *columns]), sliced.table

    def _summary(self) -> MeasurementSummary:
        found, names = self._bootstrap.intervals(self.settings.confidence), self.metrics.columns
        errors = dict(zip(names, self._bootstrap.standard_errors(), strict=False))
        overall = {} if self._exposure is None else self._exposure.figures(self.settings.confidence)
        return MeasurementSummary(
            metrics=dict(zip(names, found, strict=False)),
            overall=overall,
            overall_without={} if self._exposure is None else self._exposure.without(),
            counts=self._counts,
            interests=self._contribution.shares(),
            slices=self.slicer.slices(found[len(names) :], self._bootstrap.users[len(names) :]),
            detectable=detectable(errors, self.settings.confidence, self.settings.power),
            settings=self.settings,
        )
