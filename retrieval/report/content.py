"""What a report says: plain data, made by the stages, drawn by `retrieval.report.page`.

Every part may be missing: a report of a candidates file alone has no training curve and no interests. Text comes from
logs and is hostile; it is escaped where it is written, never here.
"""

from typing import Any, Literal

from pydantic import Field

from retrieval.core.settings import Settings
from retrieval.evaluation.bootstrap import Interval
from retrieval.evaluation.frontier import FrontierPoint
from retrieval.evaluation.health import InterestHealth

SCHEMA_VERSION = 1
Overall = dict[str, float | None]


class System(Settings):
    """A measured system. `metrics`: "recall@50" -> interval; `overall`: "coverage@50" -> figure of all lists together."""

    name: str
    role: Literal["main", "baseline"]
    metrics: dict[str, Interval]
    overall: Overall = {}
    about: str = ""


class Difference(Settings):
    """The main system minus a baseline, paired by user: metric -> interval of the difference."""

    baseline: str
    users: int
    differences: dict[str, Interval]


class CurvePoint(Settings):
    """A step of training; `validation` where it was measured."""

    step: int
    loss: float | None = None
    validation: float | None = None


class Training(Settings):
    """How training went. `validation_metric` names the `validation` of the points, `best_step` the step that was kept."""

    points: tuple[CurvePoint, ...] = ()
    validation_metric: str = "recall@50"
    best_step: int | None = None
    notes: tuple[str, ...] = ()


class DataSummary(Settings):
    """The log after validation. `facts`: label -> value, shown as they are; `quarantine`: rule -> rows set aside."""

    facts: dict[str, str | int | float | None] = {}
    quarantine: dict[str, int] = {}
    rows_read: int | None = None


class StageCost(Settings):
    """What a stage took; `reused` when its result was there already."""

    name: str
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    reused: bool = False


class ListedItem(Settings):
    """An item as a person sees it. `hit`: it was among the hidden targets; `interest` that brought it."""

    title: str
    category: str | None = None
    hit: bool = False
    interest: int | None = None


class SampleUser(Settings):
    """One user: what they did (oldest first), what each interest is near to, and the list that was made."""

    user: str
    history: tuple[ListedItem, ...] = ()
    interests: tuple[tuple[ListedItem, ...], ...] = ()
    candidates: tuple[ListedItem, ...] = ()
    targets: tuple[ListedItem, ...] = ()


class RunFacts(Settings):
    """Where the figures come from. `config`: the resolved recipe; `hashes`: artifact or file -> id or sha256."""

    config: dict[str, Any] = {}
    hashes: dict[str, str] = {}
    stages: tuple[StageCost, ...] = ()
    machine: dict[str, str] = {}
    created_at: str = ""


class Evidence(Settings):
    """What was measured: the systems (the main one first), paired differences, the lambda curve and the interests."""

    systems: tuple[System, ...] = Field(min_length=1)
    differences: tuple[Difference, ...] = ()
    frontier: tuple[FrontierPoint, ...] = ()
    health: InterestHealth | None = None
    counts: dict[str, int] = {}
    confidence: float = 0.95


class ReportContent(Settings):
    """A whole report. `primary`: the metric that decides, such as "recall@50"; `notes`: warnings to the reader."""

    title: str
    primary: str
    evidence: Evidence
    training: Training | None = None
    data: DataSummary = DataSummary()
    users: tuple[SampleUser, ...] = ()
    run: RunFacts = RunFacts()
    notes: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @property
    def main(self) -> System:
        """The system the report is about."""
        return next((system for system in self.evidence.systems if system.role == "main"), self.evidence.systems[0])

    @property
    def baselines(self) -> tuple[System, ...]:
        """The systems it stands beside."""
        return tuple(system for system in self.evidence.systems if system is not self.main)
