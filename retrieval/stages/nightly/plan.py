"""nightly --dry-run: what a night would do, and what it would cost; nothing is written."""

import datetime as dt
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from retrieval.core.artifacts import Artifact, StagedArtifact, Workspace
from retrieval.core.errors import IntegrityError
from retrieval.core.objects import SCHEME
from retrieval.core.publication import Publication
from retrieval.core.settings import Settings, fingerprint
from retrieval.data.files import find_inputs, row_count
from retrieval.stages.audience import Scope
from retrieval.stages.ensure import Stages, artifact_identity
from retrieval.stages.fetch import FETCH, fetch
from retrieval.stages.nightly.estimates import Expected, expected
from retrieval.stages.nightly.records import Nights
from retrieval.stages.nightly.request import Request
from retrieval.stages.nightly.shared import SharedNights
from retrieval.stages.nightly.summary import amount, duration, table
from retrieval.stages.nightly.training import last_before, training_of
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.prepare import with_generated_paths
from retrieval.stages.recipe import Recipe

SCHEMA_VERSION = 1


class PlannedStage(Settings):
    """A stage, whether its artifact is there, and what it is expected to take; None where no earlier night made it."""

    stage: str
    done: bool
    artifact: str
    expected: Expected | None


class Plan(Settings):
    """A night that was not run. published_already: it would do nothing. pulled: the version that would be taken from the store first, 0 for
    none; the plan is of the workspace without it.

    rows: None where the log is not there yet. Sums are over what is not done and has been made before.
    """

    schema_version: int = SCHEMA_VERSION
    recipe: str
    date: str
    rows: int | None
    training: str
    published: int
    published_already: bool
    pulled: int
    stages: tuple[PlannedStage, ...]
    seconds: float
    peak_memory_bytes: int
    bytes: int
    free_bytes: int


def plan(request: Request) -> Plan:
    """Look at the log and the workspace.

    Raises:
        UsageError: the recipe is wrong, or its log is not there. ResourceError: a store does not answer.
    """
    recipe = request.recipe()
    publication, nights = Publication(request.workspace, recipe.name), Nights(request.workspace, recipe.name)
    training = training_of(recipe, publication, last_before(publication, request.date))
    looking = _Looking(Workspace(request.workspace))
    rows = _rows(recipe, looking)
    costs = expected(nights.all(), rows or 0)
    stages = _stages(Pipeline(training.recipe, looking), rows is not None)
    named = {stage: PlannedStage(stage=stage, done=done, artifact=name, expected=costs.get(stage)) for stage, done, name in stages}
    # The report and the published model's figures come and go with the recipe; what the last night made is what the next will make.
    named |= {stage: PlannedStage(stage=stage, done=False, artifact="", expected=costs[stage]) for stage in costs.keys() - named.keys()}
    ahead = [stage.expected for stage in named.values() if stage.expected and not stage.done]
    return Plan(
        recipe=recipe.name,
        date=request.date.isoformat(),
        rows=rows,
        training=training.said,
        published=max(publication.pointed(), 0),
        published_already=not request.again and _is_published(publication, request.date),
        pulled=SharedNights(request.workspace, recipe).ahead(),
        stages=tuple(named.values()),
        seconds=round(sum(each.seconds for each in ahead), 3),
        peak_memory_bytes=max((each.peak_memory_bytes for each in ahead), default=0),
        bytes=sum(each.bytes for each in ahead),
        free_bytes=shutil.disk_usage(_existing(request.workspace)).free,
    )


def _is_published(publication: Publication, date: dt.date) -> bool:
    try:
        current = publication.current()
    except IntegrityError:
        return False
    return current is not None and current.date == date.isoformat()


def plan_lines(planned: Plan) -> str:
    """A plan for a person."""
    rows = "a log that is not here yet" if planned.rows is None else f"{planned.rows:,} rows"
    lines = [f"{planned.recipe}, night of {planned.date}: {rows}; training {planned.training}", ""]
    lines += table(["stage", "", "wall", "memory", "on disk", "artifact"], [_cells(stage) for stage in planned.stages])
    ahead = [stage for stage in planned.stages if not stage.done]
    unknown = [stage.stage for stage in ahead if stage.expected is None]
    known = f"about {duration(planned.seconds)}, {amount(planned.peak_memory_bytes)} of memory, {amount(planned.bytes)} on disk"
    nothing = ahead and len(unknown) == len(ahead)
    lines += ["", f"{'' if nothing else f'{known}; '}{amount(planned.free_bytes)} are free"]
    lines += [f"not known before a first night: {', '.join(unknown)}"] if unknown else []
    lines += (
        [f"published already as version {planned.published}: it would do nothing; --again runs it anew"]
        if planned.published_already
        else []
    )
    lines += [f"version {planned.pulled} would be taken from the store first; this is without it"] if planned.pulled else []
    lines += ["the disk has too little room"] if planned.bytes > planned.free_bytes else []
    return "\n".join(line.rstrip() for line in lines)


def _cells(stage: PlannedStage) -> list[str]:
    cost = stage.expected
    figures = [duration(cost.seconds), amount(cost.peak_memory_bytes), amount(cost.bytes)] if cost and not stage.done else ["", "", ""]
    return [stage.stage, "done" if stage.done else "to do", *figures, stage.artifact]


class _MissingError(Exception):
    """An artifact that a night would make."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(name)


class _Looking(Stages):
    """Finds what is there; what is not, it names."""

    def ensure(
        self,
        stage: str,
        kind: str,
        *,
        settings: Mapping[str, Any],
        inputs: Mapping[str, str],
        write: Callable[[StagedArtifact], None],
        folder: Path | None = None,
    ) -> Artifact:
        """The artifact, if it is there."""
        del stage, write, folder
        name = artifact_identity(kind, settings, inputs)
        found = self.workspace.find(kind, name)
        return found if found is not None else _raise(_MissingError(f"{kind}/{name}"))


def _raise(error: Exception) -> NoReturn:
    raise error


def _stages(pipeline: Pipeline, has_log: bool) -> Iterator[tuple[str, bool, str]]:
    """Stage, whether it is done, and the artifact as far as it can be named: an id is a function of what comes before."""
    steps: dict[str, Callable[[], Artifact]] = {
        "prepare": lambda: pipeline.dataset_artifact,
        "train": lambda: pipeline.model_artifact,
        "embed": lambda: pipeline.vectors,
        "build-index": lambda: pipeline.index,
        "recall": lambda: pipeline.candidates(Scope()),
        "evaluate": lambda: pipeline.measurements,
        "recall all": lambda: pipeline.candidates(Scope(who="all")),
    }
    for name, path in pipeline.recipe.data.paths.items():
        if path.startswith(SCHEME):
            yield f"{FETCH} {name}", has_log, ""
    missing = "" if has_log else "-"
    for stage, find in steps.items():
        if missing:
            yield stage, False, ""
            continue
        try:
            found = find()
        except _MissingError as there:
            missing = there.name
            yield stage, False, missing
        else:
            yield stage, True, f"{found.kind}/{found.id}"


def _rows(recipe: Recipe, looking: Stages) -> int | None:
    data = recipe.data
    if recipe.generate is not None:
        folder = looking.workspace.root / "generated" / fingerprint(recipe.generate.model_dump())
        if not folder.is_dir():
            return None
        data = with_generated_paths(data, folder)
    try:
        path = fetch(data, looking).interactions.path
    except _MissingError:
        return None
    return row_count(find_inputs(path, "data.interactions.path"))


def _existing(path: Path) -> Path:
    path = path.absolute()
    return next(each for each in (path, *path.parents) if each.exists())
