"""The trade between accuracy and diversity: lists built with several weights of the category term, measured alike."""

from collections.abc import Iterable

import polars as pl

from retrieval.core.settings import Settings
from retrieval.evaluation.bootstrap import Interval
from retrieval.evaluation.evaluator import evaluate
from retrieval.evaluation.judgements import GroundTruth
from retrieval.evaluation.settings import EvaluationSettings


class FrontierPoint(Settings):
    """What the lists built with one weight (lambda) score: every metric of `evaluate`, such as "recall@50"."""

    weight: float
    metrics: dict[str, Interval]


def frontier(
    lists: Iterable[tuple[float, pl.DataFrame]], truth: GroundTruth, items: pl.DataFrame, settings: EvaluationSettings
) -> list[FrontierPoint]:
    """Measure one table of candidates a weight, in the order given; only one table need be in memory at a time.

    `lists`: (lambda, columns user_id, item_id and rank or score). `items`: item_id, categories, events, as in `evaluate`.

    Raises:
        DataContractError: a table breaks its contract.
    """
    return [FrontierPoint(weight=weight, metrics=evaluate(table, truth, items, settings).summary.metrics) for weight, table in lists]
