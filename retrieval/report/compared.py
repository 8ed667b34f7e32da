"""What a comparison of runs says, as plain data."""

from typing import Any

from pydantic import Field

from retrieval.core.settings import Settings
from retrieval.evaluation.bootstrap import Interval
from retrieval.evaluation.comparison import Comparison, Difference
from retrieval.report.explained import NamedItem

SCHEMA_VERSION = 1


class ComparedSystem(Settings):
    """One run: its name in this comparison, the artifact of its measurements, and what was measured."""

    name: str
    artifact: str
    metrics: dict[str, Interval] = Field(default_factory=dict)
    overall: dict[str, Interval] = Field(default_factory=dict)


class SettingDifference(Settings):
    """A setting that the runs do not share, such as "model.interests"; a value a run, None where it has no such setting."""

    name: str
    values: tuple[str | None, ...]


class SliceRow(Settings):
    """A part of the users or of their targets: the deciding metric of every run, and the differences to the first one by name.

    `winner`: the run that is surely better than every other one here, after correction for the number of slices; None without one.
    """

    dimension: str
    value: str
    users: int
    few: bool
    metric: str
    means: dict[str, Interval]
    differences: dict[str, Difference]
    winner: str | None = None


class MovedUser(Settings):
    """What the deciding metric of one user is with the first run and with the other one."""

    user: int | str
    first: float
    other: float

    @property
    def change(self) -> float:
        """Positive where the other run is better."""
        return self.other - self.first


class SideItem(NamedItem):
    """A line of a list: `hit`, whether the item was hidden; `elsewhere`, its rank among the first n of the
    other list, None where it is not among them.
    """

    rank: int
    hit: bool
    elsewhere: int | None = None


class SideBySide(Settings):
    """The lists that one user gets from the first run and from the other one; `targets`: how many items were hidden.

    `first`, `other`: the first items, and of the rest of the list the hits.
    """

    moved: MovedUser
    targets: int
    first: tuple[SideItem, ...]
    other: tuple[SideItem, ...]


class Pair(Settings):
    """A run against the first one: differences are this run minus the first, so that a positive one favours this run.

    `gained`, `lost`, `same`: users by the deciding metric. `common`: mean share of the first n items that both lists hold, over
    `common_users` users. `lists`: of the users who moved most.
    """

    name: str
    comparison: Comparison
    gained: int
    lost: int
    same: int
    common: float | None = None
    common_users: int = 0
    most_gained: tuple[MovedUser, ...] = ()
    most_lost: tuple[MovedUser, ...] = ()
    lists: tuple[SideBySide, ...] = ()


class CompareContent(Settings):
    """Two or more runs on the same users; the first one is what the others are compared with."""

    schema_version: int = SCHEMA_VERSION
    title: str = "Comparison"
    created: str = ""
    primary: str = "recall@50"
    confidence: float = 0.95
    users: int = 0
    systems: tuple[ComparedSystem, ...] = ()
    pairs: tuple[Pair, ...] = ()
    settings: tuple[SettingDifference, ...] = ()
    slices: tuple[SliceRow, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values; `schema_version` says how to read them."""
        return self.model_dump(mode="json")
