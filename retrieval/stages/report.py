"""report: the measurements of a run and its baselines -> one page, as HTML, Markdown and JSON."""

import datetime as dt
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from retrieval.core.artifacts import Artifact, StagedArtifact, write_json, write_text_durably
from retrieval.evaluation.health import InterestHealth
from retrieval.evaluation.measurements import Measurements, compare
from retrieval.recall.settings import RecallSettings
from retrieval.report.content import (
    DataSummary,
    FrontierPoint,
    HealthFigure,
    InterestSummary,
    ReportContent,
    Results,
    RunRecord,
    SampleInterest,
    SampleItem,
    SampleUser,
    StageRecord,
    System,
    TrainingCurve,
    TrainingPoint,
)
from retrieval.report.markdown import render_markdown
from retrieval.report.page import render_html
from retrieval.stages.explain import explain_row

if TYPE_CHECKING:
    from retrieval.stages.pipeline import Pipeline

_SAMPLES, _SAMPLE_ITEMS = 3, 10


def write_report(pipeline: "Pipeline", measurements: Artifact, baselines: Mapping[str, Artifact], staged: StagedArtifact) -> None:
    """Gather what the page says, and render it three ways."""
    content = ReportContent(
        title=f"{pipeline.recipe.name}: {pipeline.recipe.model.name} on {pipeline.recipe.data.name}",
        created=dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        results=_results(pipeline, measurements, baselines),
        frontier=_frontier(pipeline, measurements),
        interests=InterestSummary(health=_health(measurements), sample_users=_samples(pipeline)),
        training=_training(pipeline),
        data=_data(pipeline),
        run=_run(pipeline),
    )
    write_text_durably(staged.path("index.html"), render_html(content))
    write_text_durably(staged.path("report.md"), render_markdown(content))
    write_json(staged.path("report.json"), content.to_json())


def _results(pipeline: "Pipeline", measurements: Artifact, baselines: Mapping[str, Artifact]) -> Results:
    main = _measured(measurements)
    others = {_label(pipeline, name): _measured(artifact) for name, artifact in baselines.items()}
    systems = [_system(pipeline.recipe.name, "main", main), *(_system(name, "baseline", found) for name, found in others.items())]
    evaluation = pipeline.recipe.evaluate
    return Results(
        primary=evaluation.primary,
        cutoffs=evaluation.cutoffs,
        confidence=evaluation.confidence,
        users=main.summary.counts["users"],
        systems=tuple(systems),
        comparisons={name: compare(main, found) for name, found in others.items()},
    )


def _label(pipeline: "Pipeline", baseline: str) -> str:
    return f"{pipeline.recipe.model.name}, K=1" if baseline == "k1" else baseline


def _measured(artifact: Artifact) -> Measurements:
    return Measurements.read(artifact.file("per_user.parquet"), artifact.file("summary.json"))


def _system(name: str, role: Any, measured: Measurements) -> System:
    return System(name=name, role=role, metrics=measured.summary.metrics, overall=measured.summary.overall)


def _frontier(pipeline: "Pipeline", measurements: Artifact) -> tuple[FrontierPoint, ...]:
    recall = pipeline.recipe.recall
    points = _json(measurements, "frontier.json")
    return tuple(FrontierPoint(**point, chosen=_is_own(recall, point["builder"], point["weight"])) for point in points)


def _is_own(recall: RecallSettings, builder: str, weight: float) -> bool:
    """Whether these are the run's lists; the plain top is what every builder gives at 0."""
    return weight == 0.0 if recall.diversity == "top" else (builder, weight) == (recall.diversity, recall.lambda_)


def _health(measurements: Artifact) -> tuple[HealthFigure, ...]:
    health = InterestHealth.model_validate(_json(measurements, "health.json")["figures"])
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
            meaning="Share of the interests that win less than 1 % of the targets.",
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


def _samples(pipeline: "Pipeline") -> tuple[SampleUser, ...]:
    """A few test users, spread evenly over the order of users."""
    split = pipeline.dataset.split
    users = np.flatnonzero((split.test_end > split.test_start) & (split.test_start > 0))
    picked = users[np.linspace(0, len(users) - 1, min(_SAMPLES, len(users))).astype(int)] if len(users) else users
    return tuple(_sample(pipeline, int(row)) for row in picked)


def _sample(pipeline: "Pipeline", row: int) -> SampleUser:
    found = explain_row(pipeline, row, _SAMPLE_ITEMS, at_the_cut=True)
    start, end = (int(bound[row]) for bound in pipeline.dataset.split.targets("test"))
    first = int(pipeline.dataset.sequences.offsets[row])
    ids = pipeline.dataset.catalog.item_ids
    targets = {ids[int(item)] for item in pipeline.dataset.sequences.items[first + start : first + end]}
    return SampleUser(
        user=found["user"],
        history=tuple(each["title"] for each in found["history"][::-1]),
        interests=tuple(
            SampleInterest(number=each["interest"], nearest=tuple(item["title"] for item in each["nearest"])) for each in found["interests"]
        ),
        items=tuple(
            SampleItem(**{name: item[name] for name in ("rank", "title", "category", "interest", "score")}, hit=item["item_id"] in targets)
            for item in found["items"]
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


def _data(pipeline: "Pipeline") -> DataSummary:
    summary = pipeline.dataset_artifact.summary
    time = summary["time"]
    return DataSummary(
        name=pipeline.recipe.data.name,
        users=summary["users"],
        items=summary["items"],
        events=summary["events"],
        categories=len(pipeline.dataset.catalog.category_names),
        first_event=_moment(time, "first"),
        last_event=_moment(time, "last"),
        quarantine=_quarantine(summary["quarantine"]),
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
