"""Item fields that are moments, in the unit of the log's own times."""

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrieval.data.times import ticks
from retrieval.evaluation.leaks.evidence import Evidence

_MOST = 0.99


def dated_fields(evidence: Evidence) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Every numeric field that holds moments: its name, and its values float64 [N] in the log's unit, NaN where it has none."""
    cuts = evidence.cuts
    if cuts is None or not evidence.in_seconds:
        return
    for name, dtype in evidence.fields.schema.items():
        if dtype.is_numeric() and (found := _moments(evidence.fields[name], cuts.valid_from)) is not None:
            yield name, found


def _moments(column: pl.Series, cut: int) -> NDArray[np.float64] | None:
    """The column's values as moments; None where it holds something else: years, counts, or numbers of articles, spread over all sizes."""
    values = column.cast(pl.Float64).to_numpy()
    told = values[np.isfinite(values) & (values > 0)]
    own, log = ticks(told), ticks(np.array([cut], np.float64))
    if not own or not log:
        return None
    moments = values * (log / own)
    inside = np.mean(told * (log / own) < 2 * cut)
    return np.where(np.isfinite(moments), moments, np.nan) if inside >= _MOST else None
