"""Event sequences in compressed sparse rows, memory-mapped."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.core.errors import IntegrityError


class SequenceDataset:
    """All events, users one after the other, each user's oldest first.

    Args:
        offsets: int64 [U+1]; the events of user u are [offsets[u], offsets[u+1]).
        items: int32 [E], item rows.
        times: int64 [E], epoch seconds, or the order where the log has no time.
        weights: float32 [E], or None when every event weighs 1.
        kinds: int32 [E], codes of event kinds, or None.

    Raises:
        IntegrityError: the arrays do not belong together.
    """

    def __init__(
        self,
        offsets: NDArray[np.int64],
        items: NDArray[np.int32],
        times: NDArray[np.int64],
        weights: NDArray[np.float32] | None = None,
        kinds: NDArray[np.int32] | None = None,
    ) -> None:
        self.offsets, self.items, self.times, self.weights, self.kinds = offsets, items, times, weights, kinds
        self._check()

    @classmethod
    def load(
        cls, offsets_path: Path, items_path: Path, times_path: Path, weights_path: Path | None = None, kinds_path: Path | None = None
    ) -> "SequenceDataset":
        """Map the .npy files into memory; nothing is read before it is used, and nothing is unpickled."""
        return cls(
            _mapped(offsets_path),
            _mapped(items_path),
            _mapped(times_path),
            _mapped(weights_path) if weights_path else None,
            _mapped(kinds_path) if kinds_path else None,
        )

    @property
    def n_users(self) -> int:
        return len(self.offsets) - 1

    @property
    def n_events(self) -> int:
        return len(self.items)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Events of every user, int64 [U]."""
        return np.diff(self.offsets)

    def history(self, user: int, end: int | None = None) -> NDArray[np.int32]:
        """The item rows of one user's first `end` events (all without it), oldest first."""
        start, stop = int(self.offsets[user]), int(self.offsets[user + 1])
        return self.items[start : stop if end is None else start + end]

    def _check(self) -> None:
        arrays = [array for array in (self.items, self.times, self.weights, self.kinds) if array is not None]
        if len(self.offsets) == 0 or self.offsets[0] != 0 or any(len(array) != self.offsets[-1] for array in arrays):
            lengths = ", ".join(str(len(array)) for array in arrays)
            raise IntegrityError(f"event arrays of {lengths} entries", expected="one length, the last offset")


def _mapped(path: Path) -> Any:
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise IntegrityError(f"is no array: {error}", where=path, remedy="run prepare again") from None
    return mapped
