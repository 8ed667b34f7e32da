"""A table of neighbours on disk and in memory."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from retrieval.core.arrays import save_array
from retrieval.core.errors import IntegrityError
from retrieval.data.splits import ranges

FILES = ("neighbour_offsets.npy", "neighbour_rows.npy", "neighbour_weights.npy")


@dataclass(frozen=True)
class Neighbours:
    """What each item speaks for: rows[offsets[i]:offsets[i + 1]] with weights above 0, heaviest first, ties by row.

    known: items that may have been counted, None for all; events on others are passed over, and are none of the newest.
    """

    offsets: Int64[np.ndarray, "n_plus_1"]
    rows: Int32[np.ndarray, "m"]
    weights: Float32[np.ndarray, "m"]
    known: Bool[np.ndarray, "n"] | None = None

    def write(self, place: Callable[[str], Path]) -> None:
        """Write the arrays at `place` of their names."""
        for name, array in zip(FILES, (self.offsets, self.rows, self.weights), strict=True):
            save_array(place(name), array)

    @classmethod
    def read(cls, place: Callable[[str], Path], items: int) -> "Neighbours":
        """Map what `write` wrote for a catalog of so many items. Raises IntegrityError when it is not that."""
        offsets, rows, weights = (_mapped(place(name)) for name in FILES)
        if len(offsets) != items + 1 or not len(rows) == len(weights) == int(offsets[-1]):
            raise IntegrityError(f"neighbours of {len(offsets) - 1} items", expected=f"of {items}", remedy="train again")
        return cls(offsets, rows, weights)

    def in_catalog(self, rows: Int64[np.ndarray, "k"]) -> "Neighbours":
        """The same table for another catalog of K items; rows: of each of them the row here, -1 for none."""
        known = rows >= 0
        lengths = np.where(known, np.diff(self.offsets)[rows], 0)
        places, owner = ranges(np.where(known, self.offsets[:-1][rows], 0), lengths)
        there = np.full(len(self.offsets) - 1, -1, np.int32)
        there[rows[known]] = np.flatnonzero(known)
        found, weights = there[self.rows[places]], self.weights[places]
        kept = found >= 0
        found, weights, owner = found[kept], weights[kept], owner[kept]
        order = np.lexsort((found, -weights, owner))
        offsets = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(rows)))]).astype(np.int64)
        return Neighbours(offsets, found[order], weights[order], known)


def _mapped(path: Path) -> Any:
    try:
        # A plain view of the mapped pages: compiled code knows no maps.
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError) as error:
        raise IntegrityError(f"is no array: {error}", where=path, remedy="train again") from None
