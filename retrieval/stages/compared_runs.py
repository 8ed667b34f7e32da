"""Which runs to compare: recipes, artifacts or ids, and what lies behind each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from retrieval.core.artifacts import MANIFEST, Artifact, Workspace, open_artifact
from retrieval.core.errors import IntegrityError, UsageError
from retrieval.evaluation.measurements import SUMMARY, Measurements, MeasurementSummary, read_summary
from retrieval.stages.prepare import content_of, find_dataset

_EXPECTED = "a recipe, or a directory or id of a report or of measurements"
_KINDS = ("report", "measurements")
_MAIN, _BASELINE = "main", "baseline "
_MANY = 8
_UNTOLD = ("evaluate.frontier_",)
"""Settings that move no figure of a comparison."""


@dataclass(frozen=True)
class Sources:
    """What the measurements of a recipe's run were made of."""

    dataset: Artifact
    candidates: Artifact
    vectors: Artifact
    model: Artifact
    index: Artifact


@dataclass(frozen=True)
class Run:
    """One side of a comparison: the measurements, and what they were made of; None for anybody's parquet."""

    name: str
    artifact: Artifact
    sources: Sources | None

    @property
    def measurements(self) -> Measurements:
        """The values of every user, read."""
        return Measurements.read(self.artifact.file)

    @property
    def summary(self) -> MeasurementSummary:
        """Everything but the values of users."""
        return read_summary(self.artifact.file(SUMMARY))

    @property
    def truth(self) -> str:
        """The sha256 of who was asked for what; a recipe's test users and anybody's who were measured on the same file are alike."""
        if self.sources is not None:
            return self.sources.dataset.manifest.files["truth.parquet"].sha256
        split = self.artifact.manifest.settings["split"]
        return self.artifact.manifest.inputs["truth"] + ("" if split == "test" else f" {split}")

    def settings(self) -> dict[str, Any]:
        """Everything the run was made with, by dotted name."""
        own = dict(flat_settings(self.artifact.manifest.settings))
        found = own if self.sources is None else self._settings(self.sources) | own
        return {name: value for name, value in found.items() if not name.startswith(_UNTOLD)}

    def _settings(self, of: Sources) -> dict[str, Any]:
        found: dict[str, Any] = {"starts from": of.model.manifest.inputs.get("start_from", None)}
        for artifact, prefix in ((of.dataset, ""), (of.model, ""), (of.index, "index."), (of.candidates, "")):
            found |= {prefix + name: value for name, value in flat_settings(artifact.manifest.settings)}
        found |= {f"library {name}": version for name, version in of.model.manifest.libraries.items()}
        return found | {"code version": of.model.manifest.code_version, "dataset": content_of(of.dataset)}


def flat_settings(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Nested tables as dotted names, as a recipe spells them."""
    for name, value in values.items():
        full = f"{path}{name}".removesuffix("_")
        if isinstance(value, Mapping) and value:
            yield from flat_settings(value, f"{full}.")
        else:
            yield full, value


def open_runs(handles: Sequence[str], workspace: Path) -> list[Run]:
    """The runs that some handles name, each HANDLE or NAME=HANDLE; HANDLE:BASELINE is a baseline of it.

    Raises:
        UsageError: there are fewer than two, a handle names nothing or several things, or two of them the same; or the runs were
            measured on different users.
        IntegrityError: what measurements were made of is gone.
    """
    if len(handles) < 2:
        raise UsageError("nothing to compare with", where="compare", expected="two runs or more")
    runs = [_open(handle, workspace) for handle in handles]
    _require_distinct(runs)
    for run in runs[1:]:
        _require_same_users(runs[0], run)
    return runs


def _open(handle: str, workspace: Path) -> Run:
    name, equals, rest = handle.partition("=")
    named = bool(equals) and "/" not in name
    found, default = _measurements(rest if named else handle, workspace)
    return _run(name if named else default, found)


def _measurements(handle: str, workspace: Path) -> tuple[Artifact, str]:
    """The measurements that a handle names, and a name for them."""
    path, _, baseline = handle.rpartition(":") if ":" in handle else (handle, "", "")
    if Path(path).suffix == ".toml":
        return _of_recipe(Path(path), workspace, baseline)
    artifact = _artifact(path, workspace)
    if artifact.kind == "measurements":
        if baseline:
            raise UsageError("measurements have no baselines", where=handle, expected="a report or a recipe before the colon")
        return artifact, ""
    return _of_report(artifact, baseline)


def _of_recipe(path: Path, workspace: Path, baseline: str) -> tuple[Artifact, str]:
    from retrieval.stages.recipe import read_recipe
    from retrieval.stages.run import open_run

    pipeline = open_run(read_recipe(path), workspace)
    if not baseline:
        return pipeline.measurements, pipeline.recipe.name
    known = pipeline.baselines()
    if baseline not in known:
        raise UsageError(f"no baseline '{baseline}'", where=path, expected=f"one of: {', '.join(known) or 'none'}")
    return known[baseline].measurements, baseline


def _of_report(report: Artifact, baseline: str) -> tuple[Artifact, str]:
    inputs = report.manifest.inputs
    wanted = f"{_BASELINE}{baseline}" if baseline else _MAIN
    if wanted not in inputs:
        known = ", ".join(name.removeprefix(_BASELINE) for name in inputs if name != _MAIN) or "none"
        raise UsageError(f"no baseline '{baseline}'", where=report.path, expected=f"one of: {known}")
    recipe = report.manifest.settings.get("recipe", {})
    return _beside(report, "measurements", inputs[wanted]), baseline or str(recipe.get("name", ""))


def _artifact(handle: str, workspace: Path) -> Artifact:
    path = Path(handle)
    path = path.parent if path.name in ("index.html", MANIFEST) else path
    if (path / MANIFEST).is_file():
        artifact = open_artifact(path)
        if artifact.kind not in _KINDS:
            raise UsageError(f"is an artifact of kind {artifact.kind}", where=path, expected=_EXPECTED)
        return artifact
    return _by_id(handle, workspace)


def _by_id(handle: str, workspace: Path) -> Artifact:
    known = [path for kind in _KINDS for path in Workspace(workspace).list(kind)]
    found = [path for path in known if (handle and f"{path.parent.name}/{path.name}".startswith(handle)) or path.name.startswith(handle)]
    if len(found) != 1:
        what = f"{len(found)} runs match" if found else "no run matches"
        names = [f"{path.parent.name}/{path.name}" for path in (found or known)[-_MANY:]]
        raise UsageError(f"{what} '{handle}'", where=workspace, expected=_EXPECTED, remedy=f"the newest: {', '.join(names) or 'none'}")
    return open_artifact(found[0])


def _run(name: str, measurements: Artifact) -> Run:
    if "candidates" not in measurements.manifest.inputs:
        return Run(name or f"lists {measurements.id[:6]}", measurements, None)
    candidates = _beside(measurements, "candidates", measurements.manifest.inputs["candidates"])
    dataset = find_dataset(_workspace(measurements), measurements.manifest.inputs["dataset"]) or _gone(measurements, "its dataset")
    vectors, index = (_beside(candidates, kind, candidates.manifest.inputs[kind]) for kind in ("vectors", "index"))
    model = _beside(vectors, "model", vectors.manifest.inputs["model"])
    given = str(model.manifest.settings.get("model", {}).get("name", "model"))
    return Run(name or f"{given} {measurements.id[:6]}", measurements, Sources(dataset, candidates, vectors, model, index))


def _beside(artifact: Artifact, kind: str, artifact_id: str) -> Artifact:
    """Another artifact of the same workspace."""
    return _workspace(artifact).find(kind, artifact_id) or _gone(artifact, f"{kind}/{artifact_id}")


def _workspace(artifact: Artifact) -> Workspace:
    return Workspace(artifact.path.parent.parent)


def _gone(artifact: Artifact, what: str) -> NoReturn:
    raise IntegrityError(f"{what}, which it was made of, is gone", where=artifact.path, remedy="run the recipe again")


def _require_distinct(runs: Sequence[Run]) -> None:
    for place, run in enumerate(runs):
        for other in runs[:place]:
            if run.artifact.id == other.artifact.id:
                raise UsageError(f"'{other.name}' and '{run.name}' are the same measurements", where="compare", expected="different runs")
            if run.name == other.name:
                raise UsageError(f"two runs are called '{run.name}'", where="compare", remedy="name them: before=RUN after=RUN")


def _require_same_users(first: Run, other: Run) -> None:
    if first.truth != other.truth:
        raise UsageError(
            f"'{first.name}' and '{other.name}' were measured on different users or targets",
            where="compare",
            expected="one split of one log",
            remedy=f"see {_truth_of(first)} and {_truth_of(other)}",
        )


def _truth_of(run: Run) -> str:
    return f"the truth of {run.artifact.path}" if run.sources is None else f"dataset/{run.sources.dataset.id}"
