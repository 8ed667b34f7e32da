"""Parts of users and of targets, measured on their own: where a system is good, and for whom it is not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from retrieval.core.settings import Settings
from retrieval.evaluation.bootstrap import Interval
from retrieval.evaluation.facts import GROUPS, ItemFacts
from retrieval.evaluation.judgements import JudgedLists
from retrieval.evaluation.labels import UserLabels, others
from retrieval.evaluation.settings import EvaluationSettings

Values = npt.NDArray[np.float64]


class Slice(Settings):
    """One part: of the `users` themselves, or of their `targets`, where a user with such targets has the recall of these alone.

    `few`: so few users that the figures say little; the intervals say how little.
    """

    about: Literal["users", "targets"]
    dimension: str
    value: str
    users: int
    few: bool
    metrics: dict[str, Interval]

    @property
    def warning(self) -> str:
        """In words, empty where there are users enough."""
        return f"only {self.users} users: too few to tell" if self.few else ""


@dataclass(frozen=True)
class SlicedUsers:
    """`values` float64[U, columns], NaN for users outside of a slice. `table`: user_id, the users' labels, and recall by targets."""

    values: Values
    table: pl.DataFrame


@dataclass(frozen=True)
class TargetDimension:
    """How targets divide: values in order, and the place of each catalog row among them, -1 for none."""

    name: str
    values: tuple[str, ...]
    codes: npt.NDArray[np.int16]


class Slicer:
    """Columns of masked values for every slice: what falls outside of a slice has no value in its columns."""

    def __init__(self, settings: EvaluationSettings, facts: ItemFacts | None, labels: UserLabels | None) -> None:
        n = settings.primary_cutoff
        self._settings, self._labels = settings, labels
        self._metrics = tuple(dict.fromkeys((settings.primary, f"recall@{n}", f"ndcg@{n}")))
        self._targets = target_dimensions(facts, settings)
        self._users = () if labels is None else labels.dimensions

    @property
    def columns(self) -> list[tuple[str, str, str, str]]:
        """What each column is: about, dimension, value, metric."""
        users = [("users", each.name, value, metric) for each in self._users for value in each.values for metric in self._metrics]
        recall = f"recall@{self._settings.primary_cutoff}"
        return users + [("targets", each.name, value, recall) for each in self._targets for value in each.values]

    def of(self, judged: JudgedLists, values: Values, names: Sequence[str]) -> SlicedUsers:
        """The values of a block of users, `names` being the columns of `values`, in every slice."""
        own = values[:, [names.index(metric) for metric in self._metrics]]
        codes = [] if self._labels is None else self._labels.codes_of(judged.users)
        parts = [
            np.where(code[:, None] == place, own, np.nan)
            for code, each in zip(codes, self._users, strict=True)
            for place in range(len(each.values))
        ]
        found = [self._recalls(judged, each) for each in self._targets]
        users = [_named(each.name, each.values, code) for code, each in zip(codes, self._users, strict=True)]
        targets = [
            pl.Series(target_column(each.name, value), recall[:, place].copy(), nan_to_null=True)
            for each, recall in zip(self._targets, found, strict=True)
            for place, value in enumerate(each.values)
        ]
        width = np.empty((len(judged.users), 0))
        return SlicedUsers(np.concatenate([width, *parts, *found], axis=1), pl.DataFrame([judged.users, *users, *targets]))

    def _recalls(self, judged: JudgedLists, dimension: TargetDimension) -> Values:
        """float64[U, values]: the share of each user's targets of each value among the first n; NaN without any."""
        kinds, users = len(dimension.values), len(judged.users)
        code = np.append(dimension.codes, np.int16(-1))[np.minimum(judged.targets, len(dimension.codes))]
        owner = np.repeat(np.arange(users), np.diff(judged.offsets))
        found = (judged.ranks > 0) & (judged.ranks <= self._settings.primary_cutoff)
        cells = owner * kinds + code
        total, hits = (np.bincount(cells[each], minlength=users * kinds).reshape(users, kinds) for each in (code >= 0, (code >= 0) & found))
        recalls: Values = np.divide(hits, total, out=np.full(total.shape, np.nan), where=total > 0)
        return recalls

    def slices(self, found: Sequence[Interval], users: npt.NDArray[np.int64]) -> tuple[Slice, ...]:
        """Intervals of the columns, in their order, as slices; a value that nobody has is left out."""
        together: dict[tuple[str, str, str], dict[str, Interval]] = {}
        counts: dict[tuple[str, str, str], int] = {}
        for (about, dimension, value, metric), interval, count in zip(self.columns, found, users, strict=True):
            key = (about, dimension, value)
            together.setdefault(key, {})[metric] = interval
            counts[key] = max(counts.get(key, 0), int(count))
        return tuple(self._slice(key, counts[key], metrics) for key, metrics in together.items() if counts[key])

    def _slice(self, key: tuple[str, str, str], users: int, metrics: dict[str, Interval]) -> Slice:
        few = users < self._settings.slices.least_users
        return Slice.model_validate({"about": key[0], "dimension": key[1], "value": key[2], "users": users, "few": few, "metrics": metrics})


def target_column(dimension: str, value: str) -> str:
    """The name of a slice of targets in a table of users."""
    return f"{dimension}={value}"


def target_dimensions(facts: ItemFacts | None, settings: EvaluationSettings) -> tuple[TargetDimension, ...]:
    """Popularity, novelty and category of targets, as far as the catalog knows them."""
    found: list[TargetDimension] = []
    if facts is not None and facts.popularity is not None:
        known = facts.popularity
        found.append(TargetDimension("target popularity", GROUPS, known.groups.astype(np.int16)))
        found.append(
            TargetDimension("target age", ("new items", "known items"), (known.events >= settings.slices.new_items).astype(np.int16))
        )
    if facts is not None and facts.labels is not None and facts.labels.names:
        found.append(_categories(facts, settings.slices.values))
    return tuple(found)


def _categories(facts: ItemFacts, most: int) -> TargetDimension:
    """The categories with most training events, or items, and the others together."""
    labels = facts.labels
    if labels is None:
        raise TypeError("no categories are known")
    weights = None if facts.popularity is None else facts.popularity.events[labels.primary >= 0].astype(np.float64)
    sizes = np.bincount(labels.primary[labels.primary >= 0], weights=weights, minlength=len(labels.names))
    order = np.argsort(-sizes, kind="stable")
    shown = order if len(order) <= most else order[: most - 1]
    names = [labels.names[code] for code in shown]
    place = np.full(len(order) + 1, len(shown), np.int16)
    place[shown], place[-1] = np.arange(len(shown)), -1
    values = tuple(names) if len(shown) == len(order) else (*names, others(labels.names))
    return TargetDimension("target category", values, place[labels.primary])


def _named(name: str, values: tuple[str, ...], codes: npt.NDArray[np.int16]) -> pl.Series:
    """Labels as text, null for none."""
    return pl.Series(name, [*values, None], dtype=pl.String).gather(np.where(codes < 0, len(values), codes))
