"""The trade between accuracy and diversity: lists built in several ways and at several weights, measured alike."""

from collections.abc import Iterable

import polars as pl

from retrieval.core.settings import Settings
from retrieval.evaluation.bootstrap import Interval
from retrieval.evaluation.evaluator import evaluate
from retrieval.evaluation.judgements import GroundTruth
from retrieval.evaluation.settings import EvaluationSettings


class FrontierPoint(Settings):
    """What the lists of one builder at one weight (lambda) score: every metric of `evaluate`, such as "recall@50"."""

    builder: str = "category_greedy"
    weight: float
    metrics: dict[str, Interval]


def frontier(
    lists: Iterable[tuple[str, float, pl.DataFrame]], truth: GroundTruth, items: pl.DataFrame, settings: EvaluationSettings
) -> list[FrontierPoint]:
    """Measure one table of candidates a builder and weight, in the order given; only one table need be in memory at a time.

    `lists`: (builder, lambda, columns user_id, item_id and rank or score). `items`: item_id, categories, events, as in
    `evaluate`.

    Raises:
        DataContractError: a table breaks its contract.
    """
    return [
        FrontierPoint(builder=builder, weight=weight, metrics=evaluate(table, truth, items, settings).summary.metrics)
        for builder, weight, table in lists
    ]
