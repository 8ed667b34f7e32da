"""evaluate: candidates against the truth, and what interests and list builder had to do with it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from retrieval.core.artifacts import Artifact, StagedArtifact, write_json
from retrieval.core.settings import parse_settings, with_overrides
from retrieval.data.catalog import Catalog
from retrieval.evaluation.evaluator import evaluate
from retrieval.evaluation.measurements import Measurements
from retrieval.evaluation.settings import EvaluationSettings
from retrieval.evaluation.tables import read_table
from retrieval.stages.recipe import Recipe


def write_measurements(recipe: Recipe, dataset: Artifact, vectors: Artifact, candidates: Artifact, staged: StagedArtifact) -> None:
    """Measure the lists of the test users, the frontier of the list builder and the health of the interests."""
    items = pl.read_parquet(dataset.file("items.parquet"))
    truth = dataset.file("truth.parquet")
    measured = evaluate(candidates.files("part-"), truth, items, recipe.evaluate)
    measured.write(staged.path("per_user.parquet"), staged.path("summary.json"))
    staged.summary |= {
        "metrics": {name: value.model_dump() for name, value in measured.summary.metrics.items()},
        "overall": measured.summary.overall,
        "counts": measured.summary.counts,
    }


def evaluate_files(candidates: Path, truth: Path, items: Path | None, split: str, overrides: Sequence[str]) -> Measurements:
    """Measure anybody's lists. `overrides` are settings of the evaluation: cutoffs=[10,50].

    Raises:
        DataContractError: a file cannot be read. UsageError: a setting is wrong.
    """
    settings = parse_settings(EvaluationSettings, with_overrides({}, overrides), "--set")
    known = None if items is None else read_table([items], None)
    return evaluate([candidates], truth, known, settings, split)


def table(measured: Measurements) -> str:
    """Metric, mean and interval, a line each."""
    rows = [
        f"{name:<18} {_number(value.mean)}  [{_number(value.low)}, {_number(value.high)}]"
        for name, value in measured.summary.metrics.items()
    ]
    rows += [f"{name:<18} {_number(figure)}" for name, figure in measured.summary.overall.items()]
    return "\n".join(rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
