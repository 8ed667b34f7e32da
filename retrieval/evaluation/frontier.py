"""The trade between accuracy and diversity: lists built in several ways and at several weights, measured alike."""

from collections.abc import Iterable

import polars as pl
from pydantic import Field

from retrieval.core.settings import Settings
from retrieval.evaluation.bootstrap import Interval
from retrieval.evaluation.evaluator import Evaluation
from retrieval.evaluation.measurements import MeasurementSummary
from retrieval.evaluation.metrics import Knowledge
from retrieval.evaluation.settings import EvaluationSettings
from retrieval.evaluation.truth import GroundTruth


class FrontierPoint(Settings):
    """What the lists of one builder at one weight (lambda) score: every metric of `evaluate`, such as "recall@50"."""

    builder: str = "category_greedy"
    weight: float
    metrics: dict[str, Interval] = Field(default_factory=dict)


def frontier(
    lists: Iterable[tuple[str, float, pl.DataFrame]], truth: GroundTruth, knowledge: Knowledge, settings: EvaluationSettings
) -> list[FrontierPoint]:
    """Measure one table of candidates a builder and weight, in the order given; only one table need be in memory at a time.

    `lists`: (builder, lambda, columns user_id, item_id and rank or score). `knowledge`: of items and histories, as in
    `Evaluation`.

    Raises:
        DataContractError: a table breaks its contract.
    """
    return [_point(builder, weight, Evaluation(settings, knowledge).run(table, truth, None)) for builder, weight, table in lists]


def _point(builder: str, weight: float, found: MeasurementSummary) -> FrontierPoint:
    return FrontierPoint(builder=builder, weight=weight, metrics=found.metrics)
