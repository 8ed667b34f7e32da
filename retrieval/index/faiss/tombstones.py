"""Rows that were removed from an index that cannot forget them.

HNSW, NSG and refiners have no removal (faiss#1991, #3339), and that of an IVF reads every list and moves the rows behind
(faiss#1021). A removed row stays where it is, is never answered, and counts for a rebuild.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from retrieval.core.errors import UsageError


class Tombstones:
    """Which of `count` rows are dead, and how many (`number`); grows with the index."""

    def __init__(self, count: int) -> None:
        self._set(np.zeros(count, dtype=bool))

    def _set(self, dead: Bool[np.ndarray, "n"]) -> None:
        self.dead, self.number = dead, int(np.count_nonzero(dead))
        self._living = np.packbits(~dead, bitorder="little")

    @classmethod
    def of_bytes(cls, packed: UInt8[np.ndarray, "bytes"], count: int) -> "Tombstones":
        """What `to_bytes` gave."""
        tombstones = cls(count)
        if len(packed):
            tombstones._set(np.unpackbits(packed, count=count, bitorder="little").astype(bool))
        return tombstones

    def to_bytes(self) -> UInt8[np.ndarray, "bytes"]:
        """A bit a row, lowest first; no bytes at all where every row lives."""
        return np.packbits(self.dead, bitorder="little") if self.number else np.zeros(0, np.uint8)

    def bury(self, rows: Int64[np.ndarray, "m"]) -> None:
        """Mark rows as dead; one that is dead already stays so.

        Raises:
            UsageError: a row is not in the index.
        """
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(self.dead):
            wrong = int(rows.min()) if rows.min() < 0 else int(rows.max())
            raise UsageError(f"row {wrong} cannot be removed", where="index", expected=f"0 to {len(self.dead) - 1}")
        dead = self.dead.copy()
        dead[rows] = True
        self._set(dead)

    def and_also(self, blocked: Bool[np.ndarray, "n"]) -> "Tombstones":
        """Others, to which these rows are dead, too."""
        tombstones = Tombstones(0)
        tombstones._set(self.dead | blocked)
        return tombstones

    def grow(self, count: int) -> None:
        """Add living rows, up to `count`."""
        self._set(np.concatenate([self.dead, np.zeros(count - len(self.dead), dtype=bool)]))

    def selector(self, faiss: Any) -> Any:
        """A faiss.IDSelector of the living rows: a bit to look up, where a list of ids would halve the speed."""
        return faiss.IDSelectorBitmap(self._living)
