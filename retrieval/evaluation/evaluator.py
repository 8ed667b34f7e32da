"""From candidates and truth to measurements: every metric at every cut-off, in blocks of users."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from retrieval.core.errors import DataContractError
from retrieval.evaluation import beyond
from retrieval.evaluation.judgements import GroundTruth, JudgedLists, judge, read_truth
from retrieval.evaluation.measurements import Measurements, MeasurementSummary, summarise
from retrieval.evaluation.metrics import METRICS
from retrieval.evaluation.settings import EvaluationSettings
from retrieval.evaluation.tables import require_columns

_BLOCK: Final = 8192
Values = npt.NDArray[np.float64]
EntryT = TypeVar("EntryT", bound=np.generic)


@dataclass(frozen=True)
class ItemFacts:
    """What the metrics beyond accuracy need to know of the catalog; None where it is not known.

    `categories` int32[N] primary category codes (-1 none). `surprise` float64[N] in bits.
    """

    ids: pl.Series
    categories: npt.NDArray[np.int32] | None
    surprise: Values | None

    @classmethod
    def of(cls, items: pl.DataFrame) -> "ItemFacts":
        """From a table with item_id and, where known, categories (list of text, the first counts) and events (training).

        Raises:
            DataContractError: there is no item_id, or events are no counts.
        """
        require_columns(items.columns, ("item_id",), "items")
        categories = beyond.primary_categories(items["categories"]) if "categories" in items.columns else None
        events = beyond.surprise(_events(items["events"])) if "events" in items.columns else None
        return cls(items["item_id"], categories, events)


def _events(column: pl.Series) -> npt.NDArray[np.int64]:
    if not column.dtype.is_integer():
        raise DataContractError(f"column 'events' is {column.dtype}", where="items", expected="whole numbers")
    return column.fill_null(0).cast(pl.Int64).to_numpy()


def evaluate(
    candidates: Sequence[Path] | pl.DataFrame,
    truth: Path | GroundTruth,
    items: pl.DataFrame | None,
    settings: EvaluationSettings,
    split: str | None = "test",
) -> Measurements:
    """Measure candidates (columns user_id, item_id, rank or score) against the truth of a split.

    Without `items` there is no diversity, novelty, coverage or Gini: they need the catalog.

    Raises:
        DataContractError: a file cannot be read or breaks its contract.
    """
    known = truth if isinstance(truth, GroundTruth) else read_truth(truth, split)
    facts = None if items is None else ItemFacts.of(items)
    judged = judge(candidates, known, None if facts is None else facts.ids, settings.depth)
    per_user = per_user_metrics(judged, facts, settings.cutoffs)
    overall = {} if facts is None else overall_metrics(judged, len(facts.ids), settings.cutoffs)
    summary = MeasurementSummary(metrics=summarise(per_user, settings), overall=overall, counts=judged.counts, settings=settings)
    return Measurements(per_user, summary)


def per_user_metrics(judged: JudgedLists, facts: ItemFacts | None, cutoffs: Sequence[int]) -> pl.DataFrame:
    """user_id and one column a metric and cut-off; null where the user has no value."""
    blocks = [slice(start, start + _BLOCK) for start in range(0, len(judged.users), _BLOCK)]
    columns: list[pl.Series] = []
    for name, metric in METRICS.items():
        columns += _columns(name, cutoffs, [metric(judged.hits[block], judged.targets[block], cutoffs) for block in blocks])
    if facts is not None and facts.categories is not None:
        codes = np.append(facts.categories, np.int32(-1))
        columns += _columns("diversity", cutoffs, [beyond.diversity(_look_up(codes, judged.items[block]), cutoffs) for block in blocks])
    if facts is not None and facts.surprise is not None:
        bits = np.append(facts.surprise, np.nan)
        columns += _columns("novelty", cutoffs, [beyond.novelty(_look_up(bits, judged.items[block]), cutoffs) for block in blocks])
    return pl.DataFrame([judged.users, *columns])


def overall_metrics(judged: JudgedLists, n_items: int, cutoffs: Sequence[int]) -> dict[str, float | None]:
    """Coverage and Gini of all the lists together."""
    found: dict[str, float | None] = {}
    for n in cutoffs:
        shown = beyond.exposure(judged.items[:, :n], n_items)
        found[f"coverage@{n}"], found[f"gini@{n}"] = beyond.coverage(shown), beyond.gini(shown)
    return found


def _columns(name: str, cutoffs: Sequence[int], blocks: list[Values]) -> list[pl.Series]:
    values = np.concatenate(blocks)
    return [pl.Series(f"{name}@{n}", values[:, column].copy(), nan_to_null=True) for column, n in enumerate(cutoffs)]


def _look_up(table: npt.NDArray[EntryT], items: npt.NDArray[np.int32]) -> npt.NDArray[EntryT]:
    """Values of items by code; the table's last entry stands for no item and for items outside the catalog."""
    last = len(table) - 1
    return table[np.where((items < 0) | (items > last), last, items)]
