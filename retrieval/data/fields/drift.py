"""How a field looks in the events to predict, against how it looked in those of training."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.data.fields.coding import MOST_DEVIATIONS, Coding, Counts, FieldColumn

_BINS = 10


def drift_of(column: FieldColumn, training: Counts, later: Counts) -> dict[str, Any]:
    """What a person should know of a field before trusting it.

    `unknown_in_training` and `unknown_later` are shares of events whose value is missing or has no row of its own; of `multi` shares of
    the names of all events, a list without any being one unknown name. `alike_in_training`: every event has the same value, so that
    the field tells nothing apart.
    `distance` is Jensen and Shannon's, the root of the divergence in bits, from 0 for equal distributions to 1 for disjoint
    ones; numbers are compared over ten even bins within five deviations. Vectors have no shares: theirs is the shift of their mean, the
    root of its mean square over the numbers, in deviations of training, and has no upper end.

    Args:
        column: R values.
        training: int64 [R], how many events of training each value has.
        later: the same of the test part.
    """
    before, after = _shares(column, training), _shares(column, later)
    found: dict[str, Any] = {"kind": column.coding.kind, "rows": column.coding.rows, "numbers": column.coding.width}
    found |= {"unknown_in_training": _rounded(before[0]), "unknown_later": _rounded(after[0])}
    found |= {"alike_in_training": _alike(column, before, training)}
    if not later.sum():
        return found
    distance = _distance(before, after) if _has_shares(column.coding) else _shift(column, training, later)
    return found | {"distance": _rounded(distance)}


def _has_shares(coding: Coding) -> bool:
    return coding.kind != "vector"


def _alike(column: FieldColumn, shares: NDArray[np.float64], training: Counts) -> bool:
    if column.values is None:
        return bool(shares.max() == 1.0)
    same = (column.values == column.values[np.argmax(training > 0)]).all(axis=1)
    return bool(same[training > 0].all())


def _shares(column: FieldColumn, events: Counts) -> NDArray[np.float64]:
    """Events with each row of the field, as shares; the first is that of the unknown."""
    if column.values is not None:
        return _binned(column.coding, column.values, events)
    assert column.codes is not None  # noqa: S101 - there are no others
    weights = events if column.offsets is None else np.repeat(events, np.diff(column.offsets))
    counts = np.bincount(column.codes, weights=weights, minlength=column.coding.rows)
    return _normal(counts)


def _binned(coding: Coding, values: NDArray[np.float32], events: Counts) -> NDArray[np.float64]:
    """Numbers by their place among even bins of what is possible; vectors by whether they are there."""
    if coding.kind == "vector":
        bins = values.any(axis=1).astype(np.int64)
    else:
        width = 2 * MOST_DEVIATIONS / _BINS
        bins = 1 + np.clip(((values[:, 0] + MOST_DEVIATIONS) / width).astype(np.int64), 0, _BINS - 1)
        bins[values[:, 1] > 0] = 0
    counts = np.bincount(bins, weights=events, minlength=_BINS + 1)
    return _normal(counts)


def _normal(counts: NDArray[Any]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = counts / max(1.0, float(counts.sum()))
    return shares


def _distance(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    middle = (before + after) / 2
    parts = [(each[each > 0] * np.log2(each[each > 0] / middle[each > 0])).sum() for each in (before, after)]
    return float(np.sqrt(max(0.0, sum(parts) / 2)))


def _shift(column: FieldColumn, training: Counts, later: Counts) -> float:
    assert column.values is not None  # noqa: S101 - vectors have numbers
    means = [np.average(column.values, axis=0, weights=events) for events in (training, later)]
    return float(np.sqrt(np.square(means[1] - means[0]).mean()))


def _rounded(value: float) -> float:
    return round(float(value), 4)
