"""The search file of `retrieval tune`: which settings are tried, between which values, and how."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from retrieval.core.errors import UsageError
from retrieval.core.settings import Settings, canonical_json, parse_settings, read_toml, with_values
from retrieval.models.settings import CountedSettings, ImportedSettings
from retrieval.stages.recipe import Recipe, parse_recipe

_FIXED = ("train", "train.validation_users")
_STEP_BUDGET = ("train.steps", "train.validate_every")


class SearchSettings(Settings):
    """The [search] table. What is compared is always the best validation value of a training, never test data."""

    method: Literal["random", "tpe", "successive-halving"] = "random"
    """`tpe` draws where earlier trials were good (Bergstra et al., NIPS 2011); `successive-halving` starts many random
    trials and goes on with the best of them (Jamieson and Talwalkar, AISTATS 2016)."""
    trials: int = Field(20, ge=1)
    seed: int = Field(1, ge=0)
    rungs: int = Field(3, ge=2, le=10)
    """`successive-halving`: how often trials are compared, the end of training included."""
    reduction: int = Field(3, ge=2)
    """`successive-halving`: one trial in so many goes on, with so many times the steps."""

    def keeps(self) -> list[int]:
        """How many trials enter each rung."""
        if self.method != "successive-halving":
            return [self.trials]
        return [max(1, self.trials // self.reduction**rung) for rung in range(self.rungs)]


class Range(Settings):
    """Numbers from low to high; whole numbers where both ends are."""

    low: int | float
    high: int | float
    log: bool = False
    """Draw on the scale of the logarithm."""
    step: int | float | None = None
    """Only low, low + step, ...: counts up to `high` at most."""

    @model_validator(mode="after")
    def _possible(self) -> "Range":
        if self.low >= self.high:
            raise ValueError(f"low = {self.low} is not below high = {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs low > 0 and goes without step")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            raise ValueError(f"step = {self.step} is not between 0 and high - low")
        return self

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int) and isinstance(self.step or 1, int)

    def at(self, count: int) -> int | float:
        """The value after `count` steps; rounded, so that 0.1 + 2 * 0.1 is 0.3."""
        value = self.low + count * (self.step or 1)
        return value if self.whole else round(value, 12)

    @property
    def steps(self) -> int:
        """How many steps fit between low and high."""
        return int((self.high - self.low) / (self.step or 1) + 1e-9)


class Choice(Settings):
    """One of some values of any kind, tables included."""

    values: list[Any] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> "Choice":
        if len({canonical_json(value) for value in self.values}) < len(self.values):
            raise ValueError("a value stands there twice")
        return self


Dimension = Range | Choice


@dataclass(frozen=True)
class Search:
    """A search file: [search], and a dimension for every dotted path of [space], tables before what lies in them."""

    settings: SearchSettings
    space: dict[str, Dimension]
    path: Path


def read_search(path: Path) -> Search:
    """Read a search file.

    Raises:
        UsageError: it is missing or malformed, or a range has no values.
    """
    values = read_toml(path)
    unknown = sorted(set(values) - {"search", "space"})
    if unknown:
        raise UsageError(f"unknown table '{unknown[0]}'", where=path, expected="[search] and [space]")
    space = {name: _dimension(name, value, path) for name, value in sorted(_flat(values.get("space", {})))}
    if not space:
        remedy = 'write "train.optimizer.learning_rate" = { low = 1e-4, high = 1e-2, log = true }'
        raise UsageError("[space] names no setting", where=path, remedy=remedy)
    return Search(parse_settings(SearchSettings, values.get("search", {}), path), space, path)


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path -> value, whether the path was quoted or written as tables."""
    for name, value in table.items():
        if isinstance(value, Mapping) and not {"low", "high"} & set(value):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _dimension(name: str, value: Any, path: Path) -> Dimension:
    where = f"{path}, {name}"
    if isinstance(value, Mapping):
        return parse_settings(Range, value, where)
    if isinstance(value, list):
        return parse_settings(Choice, {"values": value}, where)
    raise UsageError(f"{value!r} is one value", where=where, expected="a list of values, or { low = ..., high = ... }")


def check_space(search: Search, values: Mapping[str, Any], source: object) -> None:
    """Try every path with its ends or choices on the recipe's values, one at a time.

    Raises:
        UsageError: a setting is unknown, a value breaks its rule, or the setting would change what is compared.
    """
    for name, dimension in search.space.items():
        for value in dimension.values if isinstance(dimension, Choice) else (dimension.low, dimension.high):
            recipe = _parse(with_values(values, {name: value}, search.path), source, search.path)
            _refuse_untrained(recipe, search)
        if name.partition(".")[0] not in ("model", "train") or name in _FIXED:
            raise UsageError(
                f"'{name}' is not searched: it may change what is compared", where=search.path, expected="settings of model or train"
            )
        if search.settings.method == "successive-halving" and name in _STEP_BUDGET:
            raise UsageError(
                f"'{name}' is the budget that successive-halving shares out", where=search.path, remedy="take it out of [space]"
            )


def _parse(values: Mapping[str, Any], source: object, where: Path) -> Recipe:
    try:
        return parse_recipe(values, source)
    except UsageError as error:
        raise UsageError(error.what, where=where) from None


def _refuse_untrained(recipe: Recipe, search: Search) -> None:
    if isinstance(recipe.model, ImportedSettings):
        raise UsageError("imported vectors are trained elsewhere: there is nothing to search", where=search.path)
    if isinstance(recipe.model, CountedSettings):
        raise UsageError(f"{recipe.model.name} is counted, not trained: there is no validation to compare", where=search.path)


def rung_stops(recipe: Recipe, search: Search) -> list[int | None]:
    """The step at which each rung ends, whole validations; None is the end of training.

    Raises:
        UsageError: a training has too few validations for the rungs.
    """
    if search.settings.method != "successive-halving":
        return [None]
    steps, every = recipe.train.in_effect().steps, recipe.train.validate_every
    shares = [steps / search.settings.reduction**rung for rung in range(search.settings.rungs - 1, 0, -1)]
    stops = [max(1, round(share / every)) * every for share in shares]
    if len(set(stops)) < len(stops) or stops[-1] >= steps:
        raise UsageError(
            f"{steps} steps with a validation every {every} do not make {search.settings.rungs} rungs",
            where=search.path,
            remedy="lower train.validate_every, search.rungs or search.reduction",
        )
    return [*stops, None]
