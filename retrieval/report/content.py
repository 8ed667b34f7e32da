"""What a report says, as plain data: built by whoever has the figures, rendered to HTML, Markdown or JSON."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from retrieval.core.settings import Settings
from retrieval.evaluation.bootstrap import Interval
from retrieval.evaluation.measurements import Comparison

SCHEMA_VERSION = 1


class System(Settings):
    """One measured system: `metrics` are means over users ("recall@50"), `overall` is of all lists together ("coverage@50")."""

    name: str
    role: Literal["main", "baseline"] = "baseline"
    metrics: dict[str, Interval] = Field(default_factory=dict)
    overall: dict[str, float | None] = Field(default_factory=dict)


class Results(Settings):
    """The measured systems. `comparisons` holds the paired differences main minus baseline, by the baseline's name."""

    primary: str = "recall@50"
    cutoffs: tuple[int, ...] = ()
    confidence: float = 0.95
    users: int | None = None
    systems: tuple[System, ...] = ()
    comparisons: dict[str, Comparison] = Field(default_factory=dict)

    @property
    def main(self) -> System | None:
        """The system the report is about, or None."""
        return next((system for system in self.systems if system.role == "main"), None)

    @property
    def baselines(self) -> tuple[System, ...]:
        """The systems it stands beside."""
        return tuple(system for system in self.systems if system.role == "baseline")


class FrontierPoint(Settings):
    """The lists of one builder at one weight (lambda); `chosen` marks the run's own lists.

    `n` is the length of the lists and `coverage` the share of the catalog in them. A metric given without a cut-off
    ("recall") is taken to be at `n` ("recall@50").
    """

    weight: float
    builder: str = "category_greedy"
    metrics: dict[str, Interval] = Field(default_factory=dict)
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


class SampleInterest(Settings):
    """One interest of a user and the titles of the items nearest to it."""

    number: int
    nearest: tuple[str | None, ...] = ()


class SampleItem(Settings):
    """One line of a user's list; `hit`: the item is among the user's targets."""

    rank: int
    title: str | None = None
    category: str | None = None
    interest: int | None = None
    score: float | None = None
    hit: bool | None = None


class SampleUser(Settings):
    """One user to look at: titles of the visible history (oldest first), interests, and the list built from them."""

    user: int | str
    history: tuple[str | None, ...] = ()
    interests: tuple[SampleInterest, ...] = ()
    items: tuple[SampleItem, ...] = ()


class InterestSummary(Settings):
    """How the interests do, in figures and by example."""

    health: tuple[HealthFigure, ...] = ()
    sample_users: tuple[SampleUser, ...] = ()


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


class DataSummary(Settings):
    """Counts of the data set, its first and last event as text, and the rows set aside by the rule they broke."""

    name: str = ""
    users: int | None = None
    items: int | None = None
    events: int | None = None
    categories: int | None = None
    first_event: str | None = None
    last_event: str | None = None
    quarantine: dict[str, int] = Field(default_factory=dict)


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
    data: DataSummary = DataSummary()
    run: RunRecord = RunRecord()

    def to_json(self) -> dict[str, Any]:
        """Plain values for report.json; `schema_version` says how to read them."""
        return self.model_dump(mode="json")
