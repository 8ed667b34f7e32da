"""From typed values to what encoders read: rows of a table, lists of rows, or numbers. Fitted on the training part alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from retrieval.core.errors import DataContractError
from retrieval.core.settings import Settings
from retrieval.data.catalog import rows_of
from retrieval.data.fields.settings import BucketedField, EntityField, MultiField, NamesField, VectorField
from retrieval.data.kernels import hash_texts

_NAMED = ("categorical", "multi")
MOST_DEVIATIONS = 5.0
"""How far from the mean a normalised number may lie."""
_SAMPLE = 1_000_000
Codes = NDArray[np.int32]
Counts = NDArray[np.int64]


class Coding(Settings):
    """How the values of a field became numbers."""

    name: str
    kind: str
    rows: int = Field(0, ge=0)
    """Of an embedding table, row 0 for what is missing or unknown; 0: the field is `width` numbers."""
    width: int = Field(0, ge=0)
    multi: bool = False
    """A list of rows a value."""
    names: tuple[str, ...] = ()
    """Of the rows from 1 on."""
    edges: tuple[float, ...] = ()
    """Row r + 1 begins at edge r; row 1 holds what lies before all."""
    fitted: bool = False
    """The edges are quantiles of the training part, not the recipe's."""
    mean: tuple[float, ...] = ()
    """Of the training part, one for every number of the field; what is subtracted first."""
    deviation: float = 0.0
    """What the numbers are divided by after that."""

    @property
    def hashed(self) -> int:
        """How many rows names are hashed into, 0 where each has its own."""
        return self.rows - 1 if self.kind in _NAMED and not self.names else 0


@dataclass(frozen=True)
class FieldColumn:
    """One field of R items, users or events.

    Either `codes` int32 [R], or with `offsets` int64 [R+1] the codes [M] of lists, none of which is empty; or
    `values` float32 [R, width]. `numbers` float32 [R] are what the codes of an event's numbers were made of, NaN where missing: tables
    of items and users keep their values themselves.
    """

    coding: Coding
    codes: Codes | None = None
    offsets: NDArray[np.int64] | None = None
    values: NDArray[np.float32] | None = None
    numbers: NDArray[np.float32] | None = None


def code_column(name: str, settings: EntityField, values: pl.Series, events: Counts) -> FieldColumn:
    """The numbers of a field.

    Args:
        name: of the field.
        settings: as the recipe declares it.
        values: [R], of the type that the reader of tables gives the kind.
        events: int64 [R], how often each row occurs in training: rows without an event teach nothing.

    Raises:
        DataContractError: no row of the training part has a value.
    """
    said = values.list.len().fill_null(0) > 0 if isinstance(settings, MultiField) else values.is_not_null()
    require_values(name, said.to_numpy() & (events > 0))
    return coded(_fitted(name, settings, values, events), values)


def require_values(name: str, known: NDArray[np.bool_]) -> None:
    """Stop where a field has no value that trains; `known` marks those of training.

    Raises:
        DataContractError: none is marked.
    """
    if not known.any():
        raise DataContractError(f"field '{name}' has no value in the training part", where="data fields", remedy="leave it out")


def coded(coding: Coding, values: pl.Series) -> FieldColumn:
    """Values [R] of items or users as a coding reads them, whatever it was fitted to."""
    if coding.kind in _NAMED:
        return _coded_names(coding, values)
    if coding.kind == "vector":
        return FieldColumn(coding, values=_scaled_vectors(coding, values))
    numbers = values.cast(pl.Float64).fill_null(np.nan).to_numpy()
    return coded_numbers(coding, numbers) if coding.rows else FieldColumn(coding, values=_scaled_numbers(coding, numbers))


def coded_numbers(coding: Coding, numbers: NDArray[np.floating]) -> FieldColumn:
    """Numbers [R] in the buckets of a coding; NaN is missing. Edges are rounded as the numbers were: .3 is not below an edge at .3."""
    edges = np.asarray(coding.edges, dtype=numbers.dtype)
    codes = (1 + np.searchsorted(edges, numbers, side="right")).astype(np.int32)
    codes[np.isnan(numbers)] = 0
    return FieldColumn(coding, codes)


def rows_of_names(coding: Coding, names: Sequence[str]) -> Codes:
    """The rows of names; 0 for those that the coding has none for."""
    if coding.hashed:
        return (1 + _hashed(names) % np.uint64(coding.hashed)).astype(np.int32)
    return (1 + rows_of(pl.Series(coding.names, dtype=pl.String), pl.Series(names, dtype=pl.String))).astype(np.int32)


def bucket_coding(name: str, settings: BucketedField, kind: str, known: NDArray[np.float64]) -> Coding:
    """The coding of numbers by the edges that the settings name, or by the quantiles of known numbers, equal ones once."""
    edges = tuple(map(float, settings.edges or _quantiles(settings.buckets, known)))
    return Coding(name=name, kind=kind, rows=len(edges) + 2, edges=edges, fitted=not settings.edges)


def names_coding(name: str, settings: NamesField, kind: str, known: Sequence[str], counts: Counts) -> Coding:
    """The coding of names; `counts` are the training events of those met."""
    if settings.hashed:
        return Coding(name=name, kind=kind, rows=settings.hashed + 1)
    names = tuple(sorted(each for each, count in zip(known, counts.tolist(), strict=True) if count >= settings.min_count))
    return Coding(name=name, kind=kind, rows=len(names) + 1, names=names)


def _fitted(name: str, settings: EntityField, values: pl.Series, events: Counts) -> Coding:
    if isinstance(settings, NamesField):
        flat = _flat(values, multi=isinstance(settings, MultiField))
        met = pl.DataFrame({"name": flat["name"], "events": events[flat["row"].to_numpy()]}).drop_nulls()
        found = met.group_by("name").agg(pl.col("events").sum())
        coding = names_coding(name, settings, settings.kind, found["name"].to_list(), found["events"].to_numpy())
        return coding.model_copy(update={"multi": isinstance(settings, MultiField)})
    if isinstance(settings, VectorField):
        known = _vectors(values, settings.dimension)[values.is_not_null().to_numpy() & (events > 0)]
        return Coding(name=name, kind=settings.kind, width=settings.dimension, **_moments(known))
    numbers = values.cast(pl.Float64).fill_null(np.nan).to_numpy()
    if settings.buckets or settings.edges:
        return bucket_coding(name, settings, settings.kind, numbers[events > 0])
    known = numbers[(events > 0) & np.isfinite(numbers)]
    return Coding(name=name, kind=settings.kind, width=2, **_moments(known[:, None]))


def _quantiles(buckets: int, known: NDArray[np.float64]) -> Sequence[float]:
    finite = known[np.isfinite(known)]
    finite = finite[:: max(1, len(finite) // _SAMPLE)]
    found: list[float] = np.unique(np.quantile(finite, np.arange(1, buckets) / buckets)).tolist() if len(finite) else []
    return found


def _moments(known: NDArray[Any]) -> dict[str, Any]:
    """Of numbers [R, width]: the mean of each, and one deviation for all, so that the angles of vectors stay."""
    return {"mean": tuple(known.mean(axis=0).tolist()), "deviation": float(known.std()) or 1.0}


def _coded_names(coding: Coding, values: pl.Series) -> FieldColumn:
    flat = _flat(values, multi=coding.multi)
    met = flat["name"].drop_nulls().unique(maintain_order=True)
    rows = pl.DataFrame({"name": met, "code": rows_of_names(coding, met.to_list())})
    codes = flat.join(rows, on="name", how="left", maintain_order="left")["code"].fill_null(0).to_numpy()
    if not coding.multi:
        return FieldColumn(coding, codes)
    lengths = np.bincount(flat["row"].to_numpy(), minlength=len(values))
    return FieldColumn(coding, codes, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def _flat(values: pl.Series, *, multi: bool) -> pl.DataFrame:
    """Rows and their names; a list without a name becomes one unknown name: every value has a row at least."""
    lists = values if multi else values.to_frame("v").select(pl.concat_list("v")).to_series()
    return pl.DataFrame({"row": np.arange(len(values)), "name": lists}).explode("name", empty_as_null=True)


def _hashed(names: Sequence[str]) -> NDArray[np.uint64]:
    """64 bits of every name, the same on every machine and in every version."""
    array = pa.array(names, type=pa.large_binary()) if names else pa.array([b""], type=pa.large_binary())
    _, offsets, data = array.buffers()
    found = np.empty(len(names), dtype=np.uint64)
    hash_texts(np.frombuffer(offsets, dtype=np.int64), np.frombuffer(data or b"\0", dtype=np.uint8), found)
    return found


def _scaled_numbers(coding: Coding, numbers: NDArray[np.float64]) -> NDArray[np.float32]:
    """Two numbers: the deviation from the mean, and whether there is no value."""
    scaled = np.clip((numbers - coding.mean[0]) / coding.deviation, -MOST_DEVIATIONS, MOST_DEVIATIONS)
    missing = np.isnan(scaled)
    return np.stack([np.where(missing, 0.0, scaled), missing], axis=1).astype(np.float32)


def _scaled_vectors(coding: Coding, values: pl.Series) -> NDArray[np.float32]:
    """Centred and divided by one deviation; a missing one is zero."""
    found = (_vectors(values, coding.width) - np.asarray(coding.mean, dtype=np.float32)) / coding.deviation
    found[values.is_null().to_numpy()] = 0.0
    return found.astype(np.float32)


def _vectors(values: pl.Series, dimension: int) -> NDArray[np.float32]:
    """[R, dimension], zeros for what is missing."""
    found = np.zeros((len(values), dimension), dtype=np.float32)
    flat = values.drop_nulls().explode(empty_as_null=False).to_numpy()
    found[values.is_not_null().to_numpy()] = flat.reshape(-1, dimension)
    return found
