"""Many searches or one change, never both: FAISS reads freed memory when an index grows under a search (faiss#1781)."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class SearchGuard:
    """Searches run side by side; a change waits for those that run, and those that come wait for the change.

    alone: searches, too, run one at a time, as they must on a GPU.
    """

    def __init__(self, *, alone: bool = False) -> None:
        self.alone = alone
        self._turn = threading.Condition()
        self._searches, self._changing, self._waiting = 0, False, 0

    @contextmanager
    def searching(self) -> Iterator[None]:
        """Hold off changes."""
        with self._turn:
            # A change that waits goes first, or a busy service would never come to it.
            self._turn.wait_for(lambda: not (self._changing or self._waiting or (self.alone and self._searches)))
            self._searches += 1
        try:
            yield
        finally:
            with self._turn:
                self._searches -= 1
                self._turn.notify_all()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold off everything else."""
        with self._turn:
            self._waiting += 1
            try:
                self._turn.wait_for(lambda: not (self._changing or self._searches))
            finally:
                self._waiting -= 1
            self._changing = True
        try:
            yield
        finally:
            with self._turn:
                self._changing = False
                self._turn.notify_all()
