"""Beyond accuracy: what the lists are made of, whatever the targets were."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

Values = npt.NDArray[np.float64]


def diversity(categories: npt.NDArray[np.int32], cutoffs: Sequence[int]) -> Values:
    """Share of the pairs within the first n whose items have different categories (ComiRec, section 4.4).

    `categories` int32[B, C]: code of the item at each rank, -1 for no item or an item without a category. Differs
    from the reference code where it would divide by zero or compare nothing: a rank without a category is left out,
    and a list with fewer than two categorised items has no diversity (NaN). Returns float64[B, len(cutoffs)].
    """
    within = _within(categories.shape[1], cutoffs)
    known = (categories >= 0).astype(np.float64) @ within
    equal = _earlier_equals(categories).astype(np.float64) @ within
    pairs = known * (known - 1) / 2
    return np.where(pairs > 0, 1.0 - equal / np.maximum(pairs, 1.0), np.nan)


def _earlier_equals(categories: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """int64[B, C]: how many earlier ranks of the same row hold the same category (0 where the category is -1).

    Sorting (category, rank) as one number groups equal categories in order of rank; the place in the group is the count.
    """
    depth = categories.shape[1]
    ranks = np.arange(depth)
    keys = np.sort(categories.astype(np.int64) * depth + ranks, axis=1)
    groups = keys // depth
    starts = np.ones(keys.shape, np.bool_)
    starts[:, 1:] = groups[:, 1:] != groups[:, :-1]
    place = ranks - np.maximum.accumulate(np.where(starts, ranks, 0), axis=1)
    place[groups < 0] = 0
    result = np.empty_like(place)
    np.put_along_axis(result, keys - groups * depth, place, axis=1)
    return result


def surprise(events: npt.NDArray[np.int64]) -> Values:
    """-log2 of each item's share of the training events, in bits; an item without events counts as one event."""
    return -np.log2(np.maximum(events, 1) / max(1, int(events.sum())))


def novelty(bits: Values, cutoffs: Sequence[int]) -> Values:
    """Mean surprise of the first n items (Zhou et al. 2010); NaN for an empty list.

    `bits` float64[B, C]: surprise of the item at each rank, NaN where there is none.
    """
    within = _within(bits.shape[1], cutoffs)
    known = ~np.isnan(bits)
    count = known.astype(np.float64) @ within
    total = np.where(known, bits, 0.0) @ within
    return np.where(count > 0, total / np.maximum(count, 1.0), np.nan)


def exposure(items: npt.NDArray[np.int32], n_items: int) -> npt.NDArray[np.int64]:
    """int64[n_items]: in how many lists each catalog row stands; rows outside 0..n_items-1 are left out."""
    shown = items[(items >= 0) & (items < n_items)]
    return np.bincount(shown, minlength=n_items)


def coverage(exposures: npt.NDArray[np.int64]) -> float:
    """Share of the catalog that stands in at least one list."""
    return float((exposures > 0).mean())


def gini(exposures: npt.NDArray[np.int64]) -> float | None:
    """Gini coefficient of exposure over the catalog: 0 all items equally often, near 1 one item only.

    None when nothing was shown.
    """
    total, n_items = int(exposures.sum()), len(exposures)
    if total == 0:
        return None
    order = np.arange(1, n_items + 1)
    weighted = float((order * np.sort(exposures)).sum())
    return 2.0 * weighted / (n_items * total) - (n_items + 1) / n_items


def primary_categories(categories: pl.Series) -> npt.NDArray[np.int32]:
    """int32[N]: a code for the first category of each item, -1 where there is none.

    `categories` is a list of strings an item, or one string an item.
    """
    first = categories.list.first() if isinstance(categories.dtype, pl.List) else categories
    return (first.rank("dense").cast(pl.Int32) - 1).fill_null(-1).to_numpy()


def _within(depth: int, cutoffs: Sequence[int]) -> Values:
    return (np.arange(depth)[:, None] < np.asarray(cutoffs)).astype(np.float64)
