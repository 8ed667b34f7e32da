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
from retrieval.data.fields.settings import BucketedField, EntityField, MultiField, NamesField, VectorField
from retrieval.data.kernels import hash_texts

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


@dataclass(frozen=True)
class FieldColumn:
    """One field of R items, users or events.

    Either `codes` int32 [R], or with `offsets` int64 [R+1] the codes [M] of lists, none of which is empty; or
    `values` float32 [R, width].
    """

    coding: Coding
    codes: Codes | None = None
    offsets: NDArray[np.int64] | None = None
    values: NDArray[np.float32] | None = None


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
    if values.filter(pl.Series(events > 0)).null_count() == int((events > 0).sum()):
        raise DataContractError(f"field '{name}' has no value in the training part", where="data fields", remedy="leave it out")
    if isinstance(settings, NamesField):
        return _names(name, settings, values, events)
    if isinstance(settings, VectorField):
        return _vectors(name, settings, values, events)
    numbers = values.cast(pl.Float64).fill_null(np.nan).to_numpy()
    if not (settings.buckets or settings.edges):
        return _normalised(name, settings.kind, numbers, events)
    return code_numbers(name, settings.kind, numbers, bucket_edges(settings, numbers[events > 0]), fitted=not settings.edges)


def code_numbers(name: str, kind: str, numbers: NDArray[np.float64], edges: Sequence[float], *, fitted: bool = False) -> FieldColumn:
    """Buckets of numbers [R]; NaN is missing. `fitted`: the edges are quantiles."""
    codes = (1 + np.searchsorted(np.asarray(edges), numbers, side="right")).astype(np.int32)
    codes[np.isnan(numbers)] = 0
    coding = Coding(name=name, kind=kind, rows=len(edges) + 2, edges=tuple(map(float, edges)), fitted=fitted)
    return FieldColumn(coding, codes)


def bucket_edges(settings: BucketedField, known: NDArray[np.float64]) -> Sequence[float]:
    """The edges that the settings name, or the quantiles of known numbers, equal ones once."""
    if settings.edges:
        return settings.edges
    finite = known[np.isfinite(known)]
    finite = finite[:: max(1, len(finite) // _SAMPLE)]
    shares = np.arange(1, settings.buckets) / settings.buckets
    found: list[float] = np.unique(np.quantile(finite, shares)).tolist() if len(finite) else []
    return found


def code_names(name: str, settings: NamesField, kind: str, known: Sequence[str], counts: Counts) -> tuple[Coding, Codes]:
    """The coding of names, and the row of each known one; `counts` are their training events."""
    if settings.hashed:
        rows = 1 + _hashed(known) % np.uint64(settings.hashed)
        return Coding(name=name, kind=kind, rows=settings.hashed + 1), rows.astype(np.int32)
    frequent = counts >= settings.min_count
    order = np.argsort(np.asarray(known, dtype=object)[frequent], kind="stable") if frequent.any() else np.empty(0, np.int64)
    places = np.zeros(len(known), dtype=np.int32)
    places[np.flatnonzero(frequent)[order]] = np.arange(1, len(order) + 1)
    names = tuple(known[place] for place in np.flatnonzero(frequent)[order])
    return Coding(name=name, kind=kind, rows=len(names) + 1, names=names), places


def _names(name: str, settings: EntityField, values: pl.Series, events: Counts) -> FieldColumn:
    assert isinstance(settings, NamesField)  # noqa: S101 - the caller has looked
    lists = values if isinstance(settings, MultiField) else values.to_frame("v").select(pl.concat_list("v")).to_series()
    # A list without a name becomes one unknown name: every value has a row at least.
    flat = pl.DataFrame({"row": np.arange(len(values)), "name": lists}).explode("name", empty_as_null=True)
    met = pl.DataFrame({"name": flat["name"], "events": events[flat["row"].to_numpy()]}).drop_nulls()
    found = met.group_by("name").agg(pl.col("events").sum()).sort("name")
    coding, rows = code_names(name, settings, settings.kind, found["name"].to_list(), found["events"].to_numpy())
    codes = flat.join(found.select("name", code=rows), on="name", how="left", maintain_order="left")["code"].fill_null(0).to_numpy()
    if not isinstance(settings, MultiField):
        return FieldColumn(coding, codes)
    lengths = np.bincount(flat["row"].to_numpy(), minlength=len(values))
    return FieldColumn(coding.model_copy(update={"multi": True}), codes, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def _hashed(names: Sequence[str]) -> NDArray[np.uint64]:
    """64 bits of every name, the same on every machine and in every version."""
    array = pa.array(names, type=pa.large_binary()) if names else pa.array([b""], type=pa.large_binary())
    _, offsets, data = array.buffers()
    found = np.empty(len(names), dtype=np.uint64)
    hash_texts(np.frombuffer(offsets, dtype=np.int64), np.frombuffer(data or b"\0", dtype=np.uint8), found)
    return found


def _normalised(name: str, kind: str, numbers: NDArray[np.float64], events: Counts) -> FieldColumn:
    """Two numbers: the deviation from the mean, and whether there is no value."""
    known = numbers[(events > 0) & np.isfinite(numbers)]
    deviation = float(known.std()) or 1.0
    scaled = np.clip((numbers - known.mean()) / deviation, -MOST_DEVIATIONS, MOST_DEVIATIONS)
    missing = np.isnan(scaled)
    values = np.stack([np.where(missing, 0.0, scaled), missing], axis=1).astype(np.float32)
    return FieldColumn(Coding(name=name, kind=kind, width=2), values=values)


def _vectors(name: str, settings: VectorField, values: pl.Series, events: Counts) -> FieldColumn:
    """Centred and divided by one deviation, so that angles stay; a missing one is zero."""
    present = values.is_not_null().to_numpy()
    found: NDArray[Any] = np.zeros((len(values), settings.dimension), dtype=np.float32)
    flat = values.drop_nulls().explode(empty_as_null=False).to_numpy()
    found[present] = flat.reshape(-1, settings.dimension)
    known = found[present & (events > 0)]
    centred = (found - known.mean(axis=0)) / (float(known.std()) or 1.0)
    centred[~present] = 0.0
    return FieldColumn(Coding(name=name, kind=settings.kind, width=settings.dimension), values=centred.astype(np.float32))
