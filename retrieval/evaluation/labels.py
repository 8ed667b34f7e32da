"""What tells users apart: any table of fields, or numbers in bands, as codes of a few values a dimension."""

import itertools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from retrieval.data.catalog import SortedIds
from retrieval.evaluation.tables import as_ids, require_columns
from retrieval.evaluation.vocabulary import require_same_type

Codes = npt.NDArray[np.int16]


def others(names: Collection[str]) -> str:
    """What all values beyond the largest are called, where no value has that name itself."""
    name = "others"
    while name in names:
        name = f"all {name}"
    return name


@dataclass(frozen=True)
class Dimension:
    """Values in order, and of each user the place of the own one among them, int16[U]; -1 for none."""

    name: str
    values: tuple[str, ...]
    codes: Codes


@dataclass(frozen=True)
class UserLabels:
    """Users, each once, and what divides them."""

    users: pl.Series
    dimensions: tuple[Dimension, ...]

    @cached_property
    def _sorted(self) -> SortedIds:
        return SortedIds(self.users)

    def codes_of(self, users: pl.Series) -> list[Codes]:
        """Of other users the codes in every dimension; -1 for one who is not known. Raises DataContractError for ids of another type."""
        require_same_type(self.users, users, "users")
        places = self._sorted.rows_of(users)
        return [np.where(places >= 0, each.codes[places] if len(each.codes) else np.int16(-1), np.int16(-1)) for each in self.dimensions]


def user_labels(table: pl.DataFrame, values: int, where: object = "users") -> UserLabels:
    """A dimension a column but user_id: the `values` most frequent texts and others; numbers with more values in quartiles.

    Of a list of names the first counts; vectors divide nobody.

    Raises:
        DataContractError: there is no user_id, or a null among them.
    """
    require_columns(table.columns, ("user_id",), where)
    kept = table.unique("user_id", keep="first", maintain_order=True)
    dimensions = distinct(_dimension(kept[name], values) for name, kind in kept.schema.items() if name != "user_id" and _divides(kind))
    return UserLabels(as_ids(kept["user_id"], where), tuple(each for each in dimensions if len(each.values) > 1))


def distinct(dimensions: Iterable[Dimension]) -> list[Dimension]:
    """The dimensions, each under a name of its own: a field that is called as one before it is told by a number."""
    found: dict[str, Dimension] = {}
    for each in dimensions:
        name, number = each.name, 1
        while name in found:
            number += 1
            name = f"{each.name} ({number})"
        found[name] = replace(each, name=name)
    return list(found.values())


def _divides(kind: pl.DataType) -> bool:
    """Numbers, names and lists of names do; vectors do not."""
    return kind.inner == pl.String if isinstance(kind, pl.List) else not kind.is_nested()


def _dimension(column: pl.Series, values: int) -> Dimension:
    name = column.name.removeprefix("field_").replace("_", " ")
    if isinstance(column.dtype, pl.List):
        column = column.list.first()
    if column.dtype.is_numeric() and column.n_unique() > values:
        return _quartiles(name, column.cast(pl.Float64))
    texts = column.cast(pl.String)
    counts = texts.drop_nulls().value_counts(sort=True).sort(["count", texts.name], descending=[True, False])
    names = counts[texts.name].to_list()
    shown = names if len(names) <= values else [*names[: values - 1], others(names)]
    codes = texts.replace_strict(shown, range(len(shown)), default=len(shown) - 1, return_dtype=pl.Int16)
    return Dimension(name, tuple(shown), codes.set(texts.is_null(), -1).to_numpy())


def _quartiles(name: str, numbers: pl.Series) -> Dimension:
    edges = sorted({numbers.quantile(share, "nearest") for share in (0.25, 0.5, 0.75)})  # type: ignore[type-var]
    return banded(name, numbers.fill_null(float("nan")).to_numpy(), [float(edge) for edge in edges])  # type: ignore[arg-type]


def banded(name: str, numbers: npt.NDArray[np.generic], edges: Sequence[float]) -> Dimension:
    """Numbers in bands: below the first edge, from each edge to before the next, from the last on; NaN is in none."""
    floats = numbers.astype(np.float64)
    codes = np.searchsorted(np.asarray(edges, np.float64), floats, side="right").astype(np.int16)
    codes[np.isnan(floats)] = -1
    whole = all(float(edge).is_integer() for edge in edges) and bool(np.all(np.mod(floats[~np.isnan(floats)], 1) == 0))
    names = [f"below {_text(edges[0])}"]
    names += [_band(low, high, whole=whole) for low, high in itertools.pairwise(edges)]
    return Dimension(name, (*names, f"{_text(edges[-1])} and more"), codes)


def _band(low: float, high: float, *, whole: bool) -> str:
    if not whole:
        return f"{_text(low)} to below {_text(high)}"
    return _text(low) if high - low == 1 else f"{_text(low)} to {_text(high - 1)}"


def _text(number: float) -> str:
    return f"{number:g}"
