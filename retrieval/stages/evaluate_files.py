"""evaluate, for anybody's parquet: neither torch nor FAISS is loaded."""

from collections.abc import Sequence
from pathlib import Path

from retrieval.core.settings import parse_settings, with_overrides
from retrieval.evaluation.evaluator import evaluate
from retrieval.evaluation.measurements import Measurements
from retrieval.evaluation.settings import EvaluationSettings
from retrieval.evaluation.tables import read_table


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
