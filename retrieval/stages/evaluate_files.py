"""evaluate, for anybody's parquet: neither torch nor FAISS is loaded, and no user's values stay in memory."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from retrieval.core.artifacts import Artifact, Workspace, sha256_of, write_json
from retrieval.core.settings import parse_settings, with_overrides
from retrieval.evaluation.bootstrap import Interval
from retrieval.evaluation.evaluator import Evaluation
from retrieval.evaluation.facts import ItemFacts
from retrieval.evaluation.labels import user_labels
from retrieval.evaluation.measurements import SUMMARY, MeasurementSummary, tables_in_blocks
from retrieval.evaluation.metrics import Knowledge
from retrieval.evaluation.settings import EvaluationSettings
from retrieval.evaluation.tables import parquet_files, read_table
from retrieval.stages.ensure import artifact_identity


def evaluate_files(
    candidates: Path, truth: Path, items: Path | None, users: Path | None, split: str, overrides: Sequence[str]
) -> MeasurementSummary:
    """Measure anybody's lists. `overrides` are settings of the evaluation: cutoffs=[10,50]. `users`: fields that slice them.

    Raises:
        DataContractError: a file cannot be read. UsageError: a setting is wrong, or the metric that decides needs other tables.
    """
    evaluation = _evaluation(items, users, overrides)
    return evaluation.run([candidates], truth, split)


def keep_measurements(
    candidates: Path, truth: Path, items: Path | None, users: Path | None, split: str, overrides: Sequence[str], workspace: Workspace
) -> Artifact:
    """Measure anybody's lists and keep the values of users, so that `compare` can open them; errors as in `evaluate_files`.

    The artifact's settings are those of the evaluation and the split, its inputs the sha256 of what was read.
    """
    evaluation, given = _evaluation(items, users, overrides), {"lists": candidates, "truth": truth, "items": items, "users": users}
    settings = {"evaluate": evaluation.settings.model_dump(mode="json", exclude={"baselines"}), "split": split}
    inputs = {name: _sha256(path) for name, path in given.items() if path is not None}
    artifact_id = artifact_identity("measurements", settings, inputs)
    if (found := workspace.find("measurements", artifact_id)) is not None:
        return found
    with workspace.create("measurements", artifact_id, settings=settings, inputs=inputs) as staged:
        with tables_in_blocks(staged.path) as write:
            summary = evaluation.run([candidates], truth, split, write)
        write_json(staged.path(SUMMARY), summary.model_dump(mode="json"))
    return workspace.open("measurements", artifact_id)


def _sha256(path: Path) -> str:
    """Of a file, or of the sums of a folder's files."""
    sums = [sha256_of(file) for file in parquet_files([path])]
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()


def _evaluation(items: Path | None, users: Path | None, overrides: Sequence[str]) -> Evaluation:
    settings = parse_settings(EvaluationSettings, with_overrides({}, overrides), "--set")
    facts = None if items is None else ItemFacts.of(read_table([items], None), settings)
    labels = None if users is None else user_labels(read_table([users], None), settings.slices.values, users)
    return Evaluation(settings, Knowledge.of(facts), labels)


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
