"""Settings of the whole process that searches need while they run, several of them at a time."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any


class SharedLimit:
    """Whoever comes first sets a limit, whoever goes last puts back what was there.

    Were each to put back what it had found, the last of two that overlap would leave the limit of the other.

    limit: sets it for as long as its context lasts.
    """

    def __init__(self, limit: Callable[[], AbstractContextManager[Any]]) -> None:
        self._limit, self._holders, self._lock, self._undo = limit, 0, threading.Lock(), ExitStack()
        self._found: Any = None

    @contextlib.contextmanager
    def held(self) -> Iterator[Any]:
        """Hold it; what the context of the first gave, such as the number that it found."""
        with self._lock:
            if self._holders == 0:
                self._found = self._undo.enter_context(self._limit())
            self._holders += 1
            found = self._found
        try:
            yield found
        finally:
            with self._lock:
                self._holders -= 1
                if self._holders == 0:
                    self._undo.close()
