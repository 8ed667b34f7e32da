"""folds: one recipe over consecutive test windows, each trained on what came before it, and their mean."""

from retrieval.core.artifacts import Artifact, StagedArtifact, write_json
from retrieval.core.settings import parse_settings
from retrieval.data.settings import SplitSettings
from retrieval.evaluation.bootstrap import Interval
from retrieval.evaluation.folds import FoldedSummary, over_folds
from retrieval.evaluation.measurements import Measurements
from retrieval.stages.pipeline import Pipeline


def run_folds(pipeline: Pipeline, folds: int) -> Artifact:
    """The measurements of every fold, oldest first, and the artifact that sums them up. Folds that are done are not done again.

    Raises:
        DataContractError: the log is too short for so many windows.
    """
    runs = [fold_of(pipeline, number) for number in range(folds, 0, -1)]
    for run in runs:
        _ = run.dataset  # a log that is too short is found before anything is trained
    measured = [run.measurements for run in runs]
    inputs = {f"fold {folds - place}": artifact.id for place, artifact in enumerate(measured)}
    return pipeline.stages.ensure("folds", "folds", settings={}, inputs=inputs, write=lambda staged: _write(measured, staged))


def fold_of(pipeline: Pipeline, number: int) -> Pipeline:
    """The same recipe on one test window, 1 the newest."""
    split = {**pipeline.recipe.split.model_dump(), "protocol": "rolling-days", "fold": number, "valid_from": None, "test_from": None}
    settings = parse_settings(SplitSettings, split, "folds")
    return Pipeline(pipeline.recipe.model_copy(update={"split": settings}), pipeline.stages, name=f"fold-{number}")


def lines(found: Artifact) -> list[str]:
    """A table for a person: every metric with both intervals, and the figure of each fold."""
    summary = FoldedSummary.model_validate(found.summary)
    width = max(map(len, summary.metrics)) + 2
    head = "".ljust(width) + "over users".ljust(28) + "over folds".ljust(28) + "folds, oldest first"
    rows = [
        f"{name:<{width}}{_cell(one.over_users)}{_cell(one.over_folds)}{' '.join('-' if v is None else f'{v:.4f}' for v in one.folds)}"
        for name, one in summary.metrics.items()
    ]
    return [head, *rows]


def _write(measured: list[Artifact], staged: StagedArtifact) -> None:
    folds = [Measurements.read(each.file) for each in measured]
    summary = over_folds(folds).model_dump(mode="json")
    write_json(staged.path("summary.json"), summary)
    staged.summary |= summary


def _cell(value: Interval) -> str:
    if value.mean is None:
        return "-".ljust(28)
    ends = "" if value.low is None or value.high is None else f" [{value.low:.4f}, {value.high:.4f}]"
    return f"{value.mean:.4f}{ends}".ljust(28)
