"""run: every stage of a recipe and its baselines, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.core.artifacts import Artifact, Workspace
from retrieval.stages.crew import use_threads
from retrieval.stages.ensure import StageRecord, Stages
from retrieval.stages.over_ray import require_ray
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recipe import Recipe
from retrieval.stages.report import write_report


@dataclass(frozen=True)
class FinishedRun:
    """The artifacts of a run; `baselines` maps a name to its measurements."""

    pipeline: Pipeline
    measurements: Artifact
    baselines: dict[str, Artifact]
    report: Artifact


def open_run(recipe: Recipe, workspace: Path) -> Pipeline:
    """The pipeline of a recipe in a workspace, with torch on the threads that the recipe allows.

    Raises:
        ResourceError: lists are to be made over Ray, which is not installed.
    """
    if recipe.machine.engine == "ray":
        require_ray()
    use_threads(recipe)
    return Pipeline(recipe, Stages(Workspace(workspace)))


def run_all(pipeline: Pipeline) -> FinishedRun:
    """Everything up to the report. Stages that are done are skipped."""
    measurements = pipeline.measurements
    others = pipeline.baselines()
    baselines = {name: other.measurements for name, other in others.items()}
    return FinishedRun(pipeline, measurements, baselines, report_of(pipeline, baselines))


def report_of(pipeline: Pipeline, baselines: Mapping[str, Artifact]) -> Artifact:
    """The page about a pipeline's measurements, beside those of other systems on the same users."""
    measurements = pipeline.measurements
    inputs = {"main": measurements.id, **{f"baseline {name}": artifact.id for name, artifact in baselines.items()}}
    recipe = pipeline.recipe.model_dump(mode="json", by_alias=True, exclude={"machine", "nightly"})
    # What the page says of rows that are not used is no part of the measurements.
    settings = {"recipe": recipe, "log": pipeline.dataset_artifact.id}
    return pipeline.stages.ensure(
        "report", "report", settings=settings, inputs=inputs, write=lambda staged: write_report(pipeline, measurements, baselines, staged)
    )


def summary_of(finished: FinishedRun) -> dict[str, Any]:
    """What --json prints: artifacts with their paths, metrics with intervals, seconds and peak memory a stage."""
    pipeline = finished.pipeline
    own = [record for record in pipeline.stages.records if ":" not in record.stage]
    return {
        "schema_version": 1,
        "recipe": pipeline.recipe.name,
        "workspace": str(pipeline.stages.workspace.root),
        "artifacts": {record.artifact.kind: _artifact(record.artifact) for record in own},
        "metrics": finished.measurements.summary["metrics"],
        "overall": finished.measurements.summary["overall"],
        **({"rescoring": said} if (said := finished.measurements.summary.get("rescoring")) else {}),
        "baselines": {
            name: {"artifact": _artifact(found), "metrics": found.summary["metrics"]} for name, found in finished.baselines.items()
        },
        "stages": [_stage(record) for record in pipeline.stages.records],
        "report": str(finished.report.path / "index.html"),
    }


def headline(finished: FinishedRun) -> str:
    """A few lines for a person: the primary metrics beside the baselines, and where the report is."""
    recipe = finished.pipeline.recipe
    n = recipe.evaluate.primary_cutoff
    names = [recipe.evaluate.primary, *(f"{metric}@{n}" for metric in ("ndcg", "diversity"))]
    columns = [name for name in dict.fromkeys(names) if name in finished.measurements.summary["metrics"]]
    systems = {recipe.name: finished.measurements, **finished.baselines}
    width = max(len(name) for name in systems) + 2
    lines = ["".ljust(width) + "".join(name.ljust(28) for name in columns)]
    lines += [name.ljust(width) + "".join(_cell(found, column) for column in columns) for name, found in systems.items()]
    lines += ["", said] if (said := finished.measurements.summary.get("rescoring")) else []
    return "\n".join(line.rstrip() for line in [*lines, "", f"report: {(finished.report.path / 'index.html').resolve()}"])


def _cell(measurements: Artifact, metric: str) -> str:
    value = measurements.summary["metrics"].get(metric) or {}
    if value.get("mean") is None:
        return "-".ljust(28)
    return f"{value['mean']:.4f} [{value['low']:.4f}, {value['high']:.4f}]".ljust(28)


def _artifact(artifact: Artifact) -> dict[str, str]:
    return {"id": artifact.id, "path": str(artifact.path)}


def _stage(record: StageRecord) -> dict[str, Any]:
    manifest = record.artifact.manifest
    return {
        "stage": record.stage,
        "skipped": record.skipped,
        "artifact": str(record.artifact.path),
        "seconds": manifest.seconds,
        "peak_memory_bytes": manifest.peak_memory_bytes,
    }
