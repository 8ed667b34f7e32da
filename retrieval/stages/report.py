"""report: the measurements of a run and its baselines -> one page, as HTML, Markdown and JSON."""

import datetime as dt
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from retrieval.core.artifacts import Artifact, StagedArtifact, write_json
from retrieval.core.durable import write_durably
from retrieval.core.settings import freed_of_secrets
from retrieval.evaluation.certainty import detectable_sentence
from retrieval.evaluation.comparison import Comparison, compare, corrected
from retrieval.evaluation.health import InterestHealth
from retrieval.evaluation.measurements import Measurements
from retrieval.evaluation.rescoring import RescoringGain
from retrieval.index.choice.front import Point
from retrieval.recall.settings import RecallSettings
from retrieval.recall.writer import write_frame
from retrieval.report.content import (
    DataSummary,
    FieldDrift,
    FieldsSummary,
    FrontierPoint,
    GateMeans,
    HealthFigure,
    IndexCandidate,
    IndexQuality,
    InterestSummary,
    KnowledgeSummary,
    ReportContent,
    RescoringSummary,
    Results,
    RunRecord,
    StageRecord,
    System,
    TrainingCurve,
    TrainingPoint,
)
from retrieval.report.markdown import render_markdown
from retrieval.report.page import render_html
from retrieval.report.report_page import report_page, report_schema
from retrieval.stages.evaluate import RESCORING
from retrieval.stages.explain import explain_sample
from retrieval.stages.gates import gates_of
from retrieval.stages.item_map import make_map, map_table

if TYPE_CHECKING:
    from retrieval.stages.pipeline import Pipeline


def write_report(pipeline: "Pipeline", measurements: Artifact, baselines: Mapping[str, Artifact], staged: StagedArtifact) -> None:
    """Gather what the page says, and render it three ways; the map's points are a table of their own, too."""
    content = report_content(pipeline, measurements, baselines)
    page = report_page(content)
    # Not searched for secrets, of which the content is free already: what looks like one in the library of the plots is none.
    write_durably(staged.path("index.html"), render_html(page))
    write_durably(staged.path("report.md"), render_markdown(page))
    write_json(staged.path("report.json"), content.to_json())
    write_json(staged.path("report.schema.json"), report_schema())
    if content.interests.item_map is not None:
        write_frame(map_table(content.interests.item_map), staged.path("map.parquet"))


def report_content(pipeline: "Pipeline", measurements: Artifact, baselines: Mapping[str, Artifact]) -> ReportContent:
    """Everything a report says, as plain data without secrets."""
    content = ReportContent(
        title=f"{pipeline.recipe.name}: {pipeline.recipe.model.name} on {pipeline.recipe.data.name}",
        created=moment_now(),
        results=_results(pipeline, measurements, baselines),
        frontier=_frontier(pipeline, measurements),
        interests=_interests(pipeline, measurements),
        training=_training(pipeline),
        index=_index(pipeline.index),
        data=_data(pipeline),
        fields=_fields(pipeline),
        rescoring=_rescoring(pipeline, measurements),
        knowledge=_knowledge(pipeline, measurements),
        run=_run(pipeline),
    )
    return freed_of_secrets(content)


def moment_now() -> str:
    """When a page is made, as it says."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _results(pipeline: "Pipeline", measurements: Artifact, baselines: Mapping[str, Artifact]) -> Results:
    main = _measured(measurements)
    systems, found = [_system(pipeline.recipe.name, "main", main)], list[Comparison]()
    for name, artifact in baselines.items():
        # One baseline's values of users are in memory at a time.
        other = _measured(artifact)
        systems.append(_system(_label(pipeline, name), "baseline", other))
        found.append(compare(main, other))
    evaluation = pipeline.recipe.evaluate
    comparisons = dict(zip((_label(pipeline, name) for name in baselines), corrected(found, evaluation.primary), strict=True))
    return Results(
        primary=evaluation.primary,
        cutoffs=evaluation.cutoffs,
        confidence=evaluation.confidence,
        users=main.summary.counts["users"],
        systems=tuple(systems),
        comparisons=comparisons,
        detectable=_detectable(main, comparisons),
    )


def _label(pipeline: "Pipeline", baseline: str) -> str:
    return f"{pipeline.recipe.model.name}, K=1" if baseline == "k1" else baseline


def _measured(artifact: Artifact) -> Measurements:
    return Measurements.read(artifact.file)


def _system(name: str, role: Any, measured: Measurements) -> System:
    found = measured.summary
    return System(name=name, role=role, metrics=found.metrics, overall=found.overall, slices=found.slices, interests=found.interests)


def _detectable(main: Measurements, comparisons: Mapping[str, Comparison]) -> str:
    """What these users can show beside every baseline; without one, what the system's own values tell."""
    metric = main.summary.settings.primary
    paired = [found.detectable[metric] for found in comparisons.values() if metric in found.detectable]
    return detectable_sentence(metric, max(paired), main.summary.settings.power) if paired else main.summary.detectable_in_words(metric)


def _frontier(pipeline: "Pipeline", measurements: Artifact) -> tuple[FrontierPoint, ...]:
    recall = pipeline.recipe.recall
    points = _json(measurements, "frontier.json")
    return tuple(FrontierPoint(**point, chosen=_is_own(recall, point["builder"], point["weight"])) for point in points)


def _is_own(recall: RecallSettings, builder: str, weight: float) -> bool:
    """Whether these are the run's lists; the plain top is what every builder gives at 0."""
    return weight == 0.0 if recall.diversity == "top" else (builder, weight) == (recall.diversity, recall.lambda_)


def _interests(pipeline: "Pipeline", measurements: Artifact) -> InterestSummary:
    health, settings = InterestHealth.model_validate(_json(measurements, "health.json")["figures"]), pipeline.recipe.report
    samples = tuple(explain_sample(pipeline, settings.users, settings.top))
    shown = max(samples, key=lambda user: user.events).user if samples else None
    return InterestSummary(
        health=_health(health), findings=tuple(health.sentences()), item_map=make_map(pipeline, shown), sample_users=samples
    )


def _health(health: InterestHealth) -> tuple[HealthFigure, ...]:
    valid = health.mean_valid_interests
    several = valid > 1
    return (
        HealthFigure(label="Interests a user", value=valid, meaning="How many interests a user has on average."),
        HealthFigure(
            label="Cosine between interests",
            value=health.pairwise_cosine,
            meaning="How alike two interests of one user are; 1 means they have collapsed into one.",
            good="below 0.9",
            at_most=0.9,
        ),
        HealthFigure(
            label="Effective rank",
            value=health.effective_rank,
            meaning="How many different directions a user's interests span.",
            good="well above 1" if several else "",
            at_least=1.2 if several else None,
        ),
        HealthFigure(
            label="Dead interests",
            value=health.dead_interests if several else None,
            meaning="Share of the interests that win less than 1 % of the targets of the users who have them.",
            good="0",
            at_most=0.0,
        ),
        HealthFigure(
            label="Overlap of the interests' lists",
            value=health.overlap,
            meaning="How much the lists that single interests would give have in common (Jaccard).",
            good="below 0.5",
            at_most=0.5,
        ),
        HealthFigure(label="Interests in a list", value=health.contributing, meaning="How many interests the items of one list come from."),
        HealthFigure(
            label="Routing entropy", value=health.routing_entropy, meaning="0: an interest reads one event; 1: it reads all events alike."
        ),
    )


def _training(pipeline: "Pipeline") -> TrainingCurve:
    metric = f"recall@{pipeline.recipe.evaluate.primary_cutoff}"
    points = _json(pipeline.model_artifact, "history.json")
    return TrainingCurve(
        metric=metric,
        points=tuple(_training_point(point, metric) for point in points),
    )


def _training_point(point: Mapping[str, Any], metric: str) -> TrainingPoint:
    health = {name: value for name, value in point.items() if name not in ("step", "loss", metric)}
    return TrainingPoint(step=int(point["step"]), loss=point["loss"], validation=point.get(metric), health=health)


def _index(index: Artifact) -> IndexQuality:
    summary, gate = index.summary, index.summary["gate"]
    measured_at = next(name for name in summary if name.startswith("recall@"))
    return IndexQuality(
        factory=summary["factory"],
        items=summary["count"],
        dimension=summary["dimension"],
        n=int(measured_at.partition("@")[2]),
        recall=gate["recall"],
        lower_bound=gate["lower_bound"],
        queries=summary["queries"],
        setting=gate["setting"],
        wanted=gate["wanted"],
        held=gate["held"],
        bytes=index.manifest.files["index.faiss"].size,
        candidates=tuple(map(_candidate, _json(index, "choice.json")["points"])) if "choice.json" in index.manifest.files else (),
    )


def _candidate(point: Mapping[str, Any]) -> IndexCandidate:
    tried = Point(**point)
    return IndexCandidate(
        name=f"{tried.factory} {tried.knob}".strip(),
        recall=tried.recall,
        lower_bound=tried.lower,
        seconds=tried.seconds,
        latency=tried.latency,
        memory_bytes=tried.memory,
        verdict=tried.verdict,
    )


def _data(pipeline: "Pipeline") -> DataSummary:
    summary = pipeline.dataset_artifact.summary
    time, split = summary["time"], dict(summary["split"])
    same = ("users", "items", "events", "rows", "categories", "items_without_category", "items_without_training_events", "filtered")
    return DataSummary(
        **{name: summary[name] for name in same},
        name=pipeline.recipe.data.name,
        first_event=_moment(time, "first"),
        last_event=_moment(time, "last"),
        protocol=split.pop("protocol"),
        split={name: value for name, value in split.items() if isinstance(value, int)},
        events_of_a_user=summary["user_events"],
        quarantine=_quarantine(summary["quarantine"]),
    )


def _fields(pipeline: "Pipeline") -> FieldsSummary:
    declared = pipeline.dataset_artifact.summary.get("fields", {})
    kept = ("kind", "unknown_in_training", "unknown_later", "distance")
    drift = [
        FieldDrift(side=side, field=name, **{key: found[key] for key in kept if key in found})
        for side, fields in declared.items()
        for name, found in fields.items()
    ]
    return FieldsSummary(drift=tuple(drift), gates=tuple(GateMeans(**row) for row in gates_of(pipeline.model_artifact)))


def _rescoring(pipeline: "Pipeline", measurements: Artifact) -> RescoringSummary:
    rescorer = pipeline.rescorer(pipeline.index)
    if rescorer is None:
        return RescoringSummary()
    metric, at_best = f"recall@{pipeline.recipe.evaluate.primary_cutoff}", rescorer.summary["validation"]
    return RescoringSummary(
        name=rescorer.summary["rescorer"],
        gain=RescoringGain.model_validate(_json(measurements, RESCORING)),
        metric=metric,
        watched=rescorer.summary["watched"],
        watched_rescored=at_best.get(metric),
        watched_recalled=at_best.get(f"{metric} of recall"),
    )


def _knowledge(pipeline: "Pipeline", measurements: Artifact) -> KnowledgeSummary:
    split, leaks = pipeline.dataset_artifact.summary["split"], _json(measurements, "leaks.json")
    return KnowledgeSummary(
        may_know=split["may_know"],
        sequential=split["sequential"]["words"],
        verdict=leaks["verdict"],
        leaks=leaks["findings"],
        checked=leaks["checked"],
        remarks=leaks["remarks"],
    )


def _moment(time: Mapping[str, Any], which: str) -> str | None:
    """A date, or nothing where the log has only an order."""
    if time["unit"] != "seconds":
        return None
    return dt.datetime.fromtimestamp(time[which], dt.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _quarantine(counts: Mapping[str, Any]) -> dict[str, int]:
    """Rows set aside, by source and rule."""
    flat: dict[str, int] = {}
    for source, found in counts.items():
        flat |= {f"{source}: {rule}": number for rule, number in found.items()} if isinstance(found, dict) else {source: found}
    return flat


def _run(pipeline: "Pipeline") -> RunRecord:
    records = pipeline.stages.records
    return RunRecord(
        stages=tuple(
            StageRecord(
                stage=record.stage,
                seconds=record.artifact.manifest.seconds,
                peak_memory_bytes=record.artifact.manifest.peak_memory_bytes,
                skipped=record.skipped,
                artifact=f"{record.artifact.kind}/{record.artifact.id}",
            )
            for record in records
        ),
        config=pipeline.recipe.model_dump(mode="json", by_alias=True),
        hashes={f"{record.stage} ({record.artifact.kind})": record.artifact.id for record in records},
    )


def _json(artifact: Artifact, name: str) -> Any:
    return json.loads(artifact.file(name).read_text(encoding="utf-8"))
