"""evaluate, for anybody's parquet: neither torch nor FAISS is loaded, and no user's values are kept."""

from collections.abc import Sequence
from pathlib import Path

from retrieval.core.settings import parse_settings, with_overrides
from retrieval.evaluation.bootstrap import Interval
from retrieval.evaluation.evaluator import Evaluation
from retrieval.evaluation.facts import ItemFacts
from retrieval.evaluation.labels import user_labels
from retrieval.evaluation.measurements import MeasurementSummary
from retrieval.evaluation.metrics import Knowledge
from retrieval.evaluation.settings import EvaluationSettings
from retrieval.evaluation.tables import read_table


def evaluate_files(
    candidates: Path, truth: Path, items: Path | None, users: Path | None, split: str, overrides: Sequence[str]
) -> MeasurementSummary:
    """Measure anybody's lists. `overrides` are settings of the evaluation: cutoffs=[10,50]. `users`: fields that slice them.

    Raises:
        DataContractError: a file cannot be read. UsageError: a setting is wrong, or the metric that decides needs other tables.
    """
    settings = parse_settings(EvaluationSettings, with_overrides({}, overrides), "--set")
    facts = None if items is None else ItemFacts.of(read_table([items], None), settings)
    labels = None if users is None else user_labels(read_table([users], None), settings.slices.values, users)
    return Evaluation(settings, Knowledge.of(facts), labels).run([candidates], truth, split)


def table(summary: MeasurementSummary) -> str:
    """Metric, mean and interval, a line each; then slices, and what the users can show."""
    rows = [_line(name, value) for name, value in (summary.metrics | summary.overall).items()]
    rows += [
        _line(f"{each.dimension}: {each.value}", each.metrics[name], name, each.warning) for each in summary.slices for name in each.metrics
    ]
    return "\n".join([*rows, "", summary.detectable_in_words(summary.settings.primary)]).rstrip()


def _line(name: str, value: Interval, *notes: str) -> str:
    line = f"{name:<24} {_number(value.mean)}  [{_number(value.low)}, {_number(value.high)}]"
    return " ".join([line, *(note for note in notes if note)])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
