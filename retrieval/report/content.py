"""What a report says, as plain data: built by whoever has the figures, rendered to HTML, Markdown or JSON."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from retrieval.core.settings import Settings
from retrieval.evaluation.bootstrap import Interval
from retrieval.evaluation.comparison import Comparison
from retrieval.evaluation.contribution import InterestShare
from retrieval.evaluation.frontier import FrontierPoint as MeasuredPoint
from retrieval.evaluation.leaks.findings import Finding
from retrieval.evaluation.rescoring import RescoringGain
from retrieval.evaluation.slices import Slice
from retrieval.report.explained import ExplainedUser

SCHEMA_VERSION = 1


class System(Settings):
    """One measured system: `metrics` are means over users ("recall@50"), `overall` is of all lists together ("coverage@50")."""

    name: str
    role: Literal["main", "baseline"] = "baseline"
    metrics: dict[str, Interval] = Field(default_factory=dict)
    overall: dict[str, Interval] = Field(default_factory=dict)
    slices: tuple[Slice, ...] = ()
    interests: tuple[InterestShare, ...] = ()


class Results(Settings):
    """The measured systems. `comparisons` holds the paired differences main minus baseline, by the baseline's name."""

    primary: str = "recall@50"
    cutoffs: tuple[int, ...] = ()
    confidence: float = 0.95
    users: int | None = None
    systems: tuple[System, ...] = ()
    comparisons: dict[str, Comparison] = Field(default_factory=dict)
    detectable: str = ""
    """The smallest difference of the primary metric that these users can show, in a sentence."""

    @property
    def main(self) -> System | None:
        """The system the report is about, or None."""
        return next((system for system in self.systems if system.role == "main"), None)

    @property
    def baselines(self) -> tuple[System, ...]:
        """The systems it stands beside."""
        return tuple(system for system in self.systems if system.role == "baseline")


class FrontierPoint(MeasuredPoint):
    """The lists of one builder at one weight (lambda), as they were measured; `chosen` marks the run's own lists.

    `n` is the length of the lists and `coverage` the share of the catalog in them. A metric given without a cut-off
    ("recall") is taken to be at `n` ("recall@50").
    """

    chosen: bool = False
    n: int | None = None
    coverage: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _with_cutoffs(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or values.get("n") is None:
            return values
        named = {name if "@" in name else f"{name}@{values['n']}": value for name, value in dict(values.get("metrics", {})).items()}
        return {**values, "metrics": named}


class HealthFigure(Settings):
    """One figure about the interests: `meaning` is one plain sentence, `good` says in words what is good.

    `at_least` and `at_most` bound what counts as healthy; without a bound nothing is judged.
    """

    label: str
    value: float | None = None
    meaning: str = ""
    good: str = ""
    at_least: float | None = None
    at_most: float | None = None

    @property
    def healthy(self) -> bool | None:
        """Whether the value keeps its bounds; None without a value or without bounds."""
        if self.value is None or (self.at_least is None and self.at_most is None):
            return None
        return (self.at_least is None or self.value >= self.at_least) and (self.at_most is None or self.value <= self.at_most)


class MapPoint(Settings):
    """A point of the map: an item of the sample, an event of the shown user's history, or one of the user's interests."""

    kind: Literal["item", "history", "interest"]
    x: float
    y: float
    label: str
    category: str | None = None


class CategoryNeighbours(Settings):
    """How a category lies among the vectors themselves, not in the picture.

    `together`: share of the 10 nearest neighbours (cosine) of its items that are of the category, too, over the sample.
    `by_chance`: what it would be if vectors knew nothing of categories.
    """

    category: str
    items: int
    together: float
    by_chance: float


class ItemMap(Settings):
    """Item vectors in two dimensions by t-SNE, with one user's history and interests among them.

    `items`: how many items were drawn of `catalog`. `perplexity`, `seed`: of the projection.
    """

    user: int | str | None = None
    items: int = 0
    catalog: int = 0
    perplexity: float = 0.0
    seed: int = 0
    points: tuple[MapPoint, ...] = ()
    categories: tuple[CategoryNeighbours, ...] = ()


class InterestSummary(Settings):
    """How the interests do: in figures, in words (`findings`, collapsed interests by number), as a map, and by example."""

    health: tuple[HealthFigure, ...] = ()
    findings: tuple[str, ...] = ()
    item_map: ItemMap | None = None
    sample_users: tuple[ExplainedUser, ...] = ()


class TrainingPoint(Settings):
    """The curve of training at one step; `validation` is the value of the metric named in `TrainingCurve`."""

    step: int
    loss: float | None = None
    validation: float | None = None
    health: dict[str, float] = Field(default_factory=dict)
    """How the interests of the validation users did at that step, by name; all points have the same names."""


class TrainingCurve(Settings):
    """Loss and validation over steps; no points where nothing was trained."""

    metric: str = "validation"
    points: tuple[TrainingPoint, ...] = ()


class IndexCandidate(Settings):
    """An index that was measured for the choice. `seconds`: core-seconds a user; `latency`: seconds that 95 of 100 users wait at most."""

    name: str
    recall: float | None = None
    lower_bound: float | None = None
    seconds: float | None = None
    latency: float | None = None
    memory_bytes: float | None = None
    verdict: str = ""


class IndexQuality(Settings):
    """The index against exact search.

    `recall`: mean share of a user's exact list of `n` that it finds, over the interests of `queries` queries; `lower_bound`: surely
    exceeded. `wanted`: what the gate `setting` demands. `candidates`: what was measured where the index was chosen.
    """

    factory: str = ""
    items: int | None = None
    dimension: int | None = None
    n: int | None = None
    recall: float | None = None
    lower_bound: float | None = None
    queries: int | None = None
    setting: str = ""
    wanted: float | None = None
    held: bool | None = None
    bytes: int | None = None
    candidates: tuple[IndexCandidate, ...] = ()


class DataSummary(Settings):
    """Counts of the data set, its first and last event as text, and what was left out.

    `split`: who trains and who is tested, by name. `quarantine`: rows set aside by the rule
    they broke. `filtered`: rows left out by the recipe's filters. `events_of_a_user`: quantiles.
    """

    name: str = ""
    users: int | None = None
    items: int | None = None
    events: int | None = None
    rows: int | None = None
    categories: int | None = None
    items_without_category: int | None = None
    items_without_training_events: int | None = None
    first_event: str | None = None
    last_event: str | None = None
    protocol: str = ""
    split: dict[str, int] = Field(default_factory=dict)
    events_of_a_user: dict[str, float] = Field(default_factory=dict)
    quarantine: dict[str, int] = Field(default_factory=dict)
    filtered: dict[str, int] = Field(default_factory=dict)


class FieldDrift(Settings):
    """A field of items, users or events (`side`): shares of events with an unknown value, and how far its values moved.

    Of `multi` the shares are of names. `distance` is from 0, alike, to 1, nothing in common; of a `vector` a shift in deviations.
    """

    side: str
    field: str
    kind: str = ""
    unknown_in_training: float | None = None
    unknown_later: float | None = None
    distance: float | None = None


class GateMeans(Settings):
    """What a tower's gate lets through of a field, on average, by slice of users."""

    tower: str
    field: str
    means: dict[str, float] = Field(default_factory=dict)


class FieldsSummary(Settings):
    """Fields as prepared, and as the model weighs them."""

    drift: tuple[FieldDrift, ...] = ()
    gates: tuple[GateMeans, ...] = ()


class RescoringSummary(Settings):
    """A re-scorer (`name`, empty where there is none): `gain` over the order of recall on the test users, and the figure `metric` of both
    orders for the `watched` validation users when it was trained.
    """

    name: str = ""
    gain: RescoringGain | None = None
    metric: str = ""
    watched: int | None = None
    watched_rescored: float | None = None
    watched_recalled: float | None = None


class KnowledgeSummary(Settings):
    """What the split lets a model know, by subject, how sequential the log is, and what the leak checker found.

    `leaks` are rows of kind, where, number of rows and an example; `checked` the kinds that were looked for, with the result.
    """

    may_know: dict[str, str] = Field(default_factory=dict)
    sequential: str = ""
    verdict: str = ""
    leaks: tuple[Finding, ...] = ()
    checked: dict[str, str] = Field(default_factory=dict)
    remarks: tuple[str, ...] = ()


class StageRecord(Settings):
    """What one stage took; `artifact` is its kind and id."""

    stage: str
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    skipped: bool = False
    artifact: str = ""


class RunRecord(Settings):
    """How the figures came about: stages in order, the resolved recipe, ids and hashes by name."""

    stages: tuple[StageRecord, ...] = ()
    config: dict[str, Any] = Field(default_factory=dict)
    hashes: dict[str, str] = Field(default_factory=dict)


class ReportContent(Settings):
    """Everything a report says. A part that is missing stays at its default, and the report says so or leaves it out."""

    schema_version: int = SCHEMA_VERSION
    title: str = "Retrieval report"
    created: str = ""
    results: Results = Results()
    frontier: tuple[FrontierPoint, ...] = ()
    interests: InterestSummary = InterestSummary()
    training: TrainingCurve = TrainingCurve()
    index: IndexQuality = IndexQuality()
    data: DataSummary = DataSummary()
    fields: FieldsSummary = FieldsSummary()
    rescoring: RescoringSummary = RescoringSummary()
    knowledge: KnowledgeSummary = KnowledgeSummary()
    run: RunRecord = RunRecord()

    def to_json(self) -> dict[str, Any]:
        """Plain values for report.json; `schema_version` says how to read them."""
        return self.model_dump(mode="json")
