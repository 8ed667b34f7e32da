"""nightly: from a log to published lists, unattended; what is done stays done, what was published stays until something better is."""

import contextlib
import datetime as dt
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from retrieval.core.artifacts import Artifact, Workspace
from retrieval.core.errors import IntegrityError, QualityGateError, ResourceError, RetrievalError, UsageError
from retrieval.core.locks import exclusive
from retrieval.core.logging import bound, get_logger
from retrieval.core.publication import Publication, Version
from retrieval.core.resources import as_resource_error, require_free_space
from retrieval.core.signals import raised_termination
from retrieval.stages.audience import Scope
from retrieval.stages.crew import use_threads
from retrieval.stages.ensure import Stages
from retrieval.stages.fetch import FETCH
from retrieval.stages.nightly import gates, measure
from retrieval.stages.nightly.collect import collect
from retrieval.stages.nightly.day import DayProfile, profile
from retrieval.stages.nightly.gates import Gate
from retrieval.stages.nightly.measure import Published
from retrieval.stages.nightly.metrics import write_metrics
from retrieval.stages.nightly.past import Past, asked_of, past_of
from retrieval.stages.nightly.records import NightRecord, Nights, Status, nobodys
from retrieval.stages.nightly.request import Request
from retrieval.stages.nightly.running import RunLog, status_of, warned
from retrieval.stages.nightly.shared import SharedNights
from retrieval.stages.nightly.sinks import require_installed, track
from retrieval.stages.nightly.training import Training, last_before, training_of
from retrieval.stages.over_ray import require_ray
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recipe import Recipe
from retrieval.stages.run import report_of

_ROOM = 1.1
"""Times what a stage wrote the last time."""
log = get_logger("nightly")


def _unheard(_: NightRecord) -> None:
    """Nobody listens."""


def run_night(request: Request, overrides: Mapping[str, str], ended: Callable[[NightRecord], None] = _unheard) -> NightRecord:
    """Everything up to the publication; stages that are done are skipped, so the same command goes on where a killed one was.

    overrides: gate -> reason for which it may fail. ended: gets the record, whatever became of the night.

    Raises:
        QualityGateError: a gate failed; what was published stays. ConflictError: another process runs the same night, or
            another one, or another machine, published meanwhile. RetrievalError: a stage failed, or the store does not answer.
    """
    recipe = request.recipe()
    shared, nights = SharedNights(request.workspace, recipe), Nights(request.workspace, recipe.name)

    def night(missed: Exception | None = None, claim: Callable[[NightRecord], bool] = nobodys) -> _Night:
        record = nights.next(recipe.name, request.date, request.as_json(), dict(overrides), claim)
        return _Night(request, recipe, shared, RunLog(nights, record), missed)

    with contextlib.ExitStack() as held:
        try:
            nights.folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(exclusive(nights.folder / ".lock", f"nightly of {recipe.name}"))
        except (OSError, ResourceError) as error:
            night().fail(error)
            raise
        with raised_termination():
            # What other machines did comes first: numbers of runs go on from theirs.
            begun = night(shared.follow(request.date), shared.claim)
            with bound(run=begun.log.record.run):
                try:
                    return begun.run()
                finally:
                    shared.keep(begun.log.record)
                    ended(begun.log.record)


@dataclass(frozen=True)
class _Night:
    request: Request
    recipe: Recipe
    shared: SharedNights
    log: RunLog
    missed: Exception | None
    """Why the store could not be followed."""

    @property
    def publication(self) -> Publication:
        return self.shared.publication

    def run(self) -> NightRecord:
        try:
            self.log.begin()
            self._measure()
            self.log.end(self._run())
        except BaseException as error:
            self.fail(error)
            raise
        self._measure()
        if self.log.record.status == "published":
            self._track()
        return self.log.record

    def fail(self, error: BaseException) -> None:
        """Say so wherever it can be said: metrics may lie on another disk than the record."""
        # A full disk must not hide behind its own consequences.
        known = error if isinstance(error, RetrievalError) else as_resource_error(error, self.request.workspace) or error
        with warned("the record of the run cannot be written"):
            self.log.end(status_of(error), known)
        self._measure()

    def _track(self) -> None:
        """Tell the trackers; what they raise is theirs, and the night is published."""
        model = next(each for each in self.log.record.stages if each.kind == "model")
        try:
            found = Workspace(self.request.workspace).open("model", model.id)
            curve = json.loads(found.file("history.json").read_text(encoding="utf-8"))
            track(self.recipe.nightly.tracking, self.log.record, curve)
        except Exception as error:
            log.warning("a tracker did not take the night", error=f"{type(error).__name__}: {error}")

    def _measure(self) -> None:
        with warned("metrics are those of another run"):
            write_metrics(self.recipe, self.publication, self.log.record)

    def _run(self) -> Status:
        if self.missed is not None:
            raise self.missed
        use_threads(self.recipe)
        require_installed(self.recipe.nightly.tracking)
        if self.recipe.machine.engine == "ray":
            require_ray()
        pointed = self.publication.pointed()
        current, earlier = self._current(), last_before(self.publication, self.request.date)
        training = training_of(self.recipe, self.publication, earlier)
        self.log.note(trained=training.said)
        log.info("night", date=self.request.date.isoformat(), training=training.said, published=current.number if current else 0)
        stages = Stages(Workspace(self.request.workspace), begins=self._begin, ended=self.log.stage)
        pipeline = Pipeline(self._judged_recipe(training.recipe), stages)
        published = self._published(current, pipeline)
        if published and self._is_published_already(published.version):
            return "unchanged"
        date = gates.date_gate(self.request.date, current.date if current else "")
        self._judge([date, gates.rollback_gate(self._taken_back(pointed))])
        past = past_of(earlier.about if earlier else None)
        day = self._day(pipeline, past, published)
        training, pipeline = self._train(training, pipeline)
        published = replace(published, night=pipeline) if published else None
        self._index(pipeline)
        measurements = pipeline.measurements
        if current and _is_of(current, self.request.date, measurements, pipeline.index):
            pipeline.candidates(Scope(who="all")).verify()
            self.log.note(published=current.number)
            return "unchanged"
        artifacts = {"measurements": measurements, **self._report(pipeline, published)}
        self._judge(measure.model_gates(pipeline, published, past))
        artifacts["candidates"] = pipeline.candidates(Scope(who="all"))
        self._judge(measure.list_gates(pipeline, artifacts["candidates"], published))
        handed_on = self._handed_on(day, past, measurements)
        self._publish(pipeline, artifacts, {"training": training.lineage(), "past": handed_on.model_dump()}, pointed)
        with warned("artifacts that nothing needs are still there"):
            collect(self.request.workspace, self.recipe)
        return "published"

    def _current(self) -> Version | None:
        """What readers take; where they can take nothing, a person has to say so before a night goes on."""
        try:
            return self.publication.current()
        except IntegrityError as error:
            self._judge([gates.published_gate(str(error))])
            return None

    def _published(self, current: Version | None, pipeline: Pipeline) -> Published | None:
        """What is current, to be compared with; a person has to say so before a night replaces something damaged unseen."""
        if current is None:
            return None
        try:
            published = Published(self.publication, current, pipeline)
            for kind in current.artifacts:
                published.artifact(kind).verify()
        except IntegrityError as error:
            self._judge([gates.published_gate(str(error))])
            return None
        return published

    def _is_published_already(self, current: Version) -> bool:
        """A day is published once, whatever has come to its log since, unless somebody asks for it again; its figures are told again."""
        if current.date != self.request.date.isoformat() or self.request.again:
            return False
        self.log.note(published=current.number, **self.log.told_of(current.number))
        log.info("published already", version=current.number, remedy="--again runs the night anew")
        return True

    def _begin(self, stage: str, kind: str, artifact_id: str) -> None:
        self._require_room(stage)
        self.log.note(begun=(*self.log.record.begun, (kind, artifact_id)))

    def _require_room(self, stage: str) -> None:
        """Stop before a stage that wrote more the last time than the disk has left; a fetch knows what it will write, and asks itself."""
        known = self.log.expected.get(stage)
        if known and not stage.startswith(FETCH):
            require_free_space(self.request.workspace, round(_ROOM * known.bytes))

    def _judged_recipe(self, recipe: Recipe) -> Recipe:
        """The recipe; without the index's own gate where somebody takes the index as it is."""
        if "ann" not in self.log.record.overrides:
            return recipe
        return recipe.model_copy(update={"index": recipe.index.model_copy(update={"min_recall": 0.0})})

    def _day(self, pipeline: Pipeline, past: Past, published: Published | None) -> DayProfile:
        """Prepare the log and judge its last day, before anything is spent on it."""
        artifact = pipeline.dataset_artifact
        self.log.note(rows=artifact.summary["rows"])
        day = profile(self.request.date, pipeline.dataset, artifact)
        self._judge(measure.data_gates(pipeline, day, past, published))
        return day

    def _why(self) -> str:
        """For the history: a version that is taken again keeps what it said of its gates when it was made."""
        opened = [f"{gate.name} overridden by {gate.who}: {gate.why}" for gate in self.log.record.gates if gate.outcome == "overridden"]
        return "; ".join([f"nightly run {self.log.record.run}", *opened])

    def _handed_on(self, day: DayProfile, past: Past, measurements: Artifact) -> Past:
        primary = measurements.summary["metrics"].get(self.recipe.evaluate.primary) or {}
        overridden = [gate.name for gate in self.log.record.gates if gate.outcome == "overridden"]
        return past.after(day, primary.get("mean"), asked_of(self.recipe), overridden, anew=self.request.new_normal)

    def _taken_back(self, pointed: int) -> int:
        """The number of a version of this day that was rolled back, 0 for none: given to readers, who are given an earlier one now."""
        given, date = self.publication.given(), self.request.date.isoformat()
        return next((each.number for each in given if each.date == date and each.number > pointed), 0)

    def _train(self, training: Training, pipeline: Pipeline) -> tuple[Training, Pipeline]:
        """The model; from fresh weights where the one to go on from does not fit, which a night is not to fail for."""
        try:
            _ = pipeline.model_artifact
        except UsageError as error:
            if not training.nights:
                raise
            anew = Training(self.recipe, 0, f"anew: the published model {error.what}")
            log.warning("training", training=anew.said)
            self.log.note(trained=anew.said)
            other = Pipeline(self._judged_recipe(anew.recipe), pipeline.stages)
            other.dataset_artifact, other.dataset = pipeline.dataset_artifact, pipeline.dataset
            return anew, other
        return training, pipeline

    def _index(self, pipeline: Pipeline) -> None:
        try:
            index = pipeline.index
        except QualityGateError as error:
            self._note([gates.judged("ann", None, error.expected, held=False, found=error.what)])
            raise
        self._judge([gates.ann_gate(self.recipe.nightly.model, index.summary)])

    def _judge(self, found: Sequence[Gate]) -> None:
        gates.require_held(self._note(found), self.log.record.run)

    def _note(self, found: Sequence[Gate]) -> list[Gate]:
        said = gates.overridden(found, self.log.record.overrides)
        self.log.note(gates=(*self.log.record.gates, *said))
        for gate in said:
            tell = log.warning if gate.outcome in ("failed", "overridden") else log.info
            tell("gate", name=gate.name, outcome=gate.outcome, found=gate.found, asked=gate.asked)
        return said

    def _report(self, pipeline: Pipeline, published: Published | None) -> dict[str, Artifact]:
        """The page of the night, beside the published model on the same users."""
        if not self.recipe.nightly.report:
            return {}
        reference = published.reference if published else None
        beside = {"published": reference.measurements} if reference else {}
        return {"report": report_of(pipeline, beside)}

    def _publish(self, pipeline: Pipeline, made: Mapping[str, Artifact], known: Mapping[str, Any], pointed: int) -> None:
        artifacts = {
            "dataset": pipeline.dataset_artifact,
            "model": pipeline.model_artifact,
            "vectors": pipeline.vectors,
            "index": pipeline.index,
            **made,
        }
        fitted = {"calibration": pipeline.calibration(pipeline.index), "rescorer": pipeline.rescorer(pipeline.index)}
        artifacts |= {kind: artifact for kind, artifact in fitted.items() if artifact}
        primary = self.recipe.evaluate.primary
        headline = {primary: made["measurements"].summary["metrics"].get(primary), "users": made["candidates"].summary["users"]}
        about = {
            "recipe": self.recipe.name,
            "run": self.log.record.run,
            **known,
            "gates": [gate.model_dump() for gate in self.log.record.gates],
            "headline": headline,
        }
        self.shared.send(artifacts.values())
        version = self.publication.publish(
            self.request.date.isoformat(),
            artifacts,
            about,
            instead_of=pointed,
            why=self._why(),
            announce=self.shared.announce,
        )
        self.log.note(published=version.number, headline=headline)
        log.info("published", version=version.number, instead_of=pointed)


def _is_of(version: Version, date: dt.date, measurements: Artifact, index: Artifact) -> bool:
    """Whether a version is this night already: lists are a function of what the two are functions of."""
    found = {kind: reference.id for kind, reference in version.artifacts.items()}
    return version.date == date.isoformat() and (found["measurements"], found["index"]) == (measurements.id, index.id)
