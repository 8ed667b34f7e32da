"""Work that goes on behind the caller's back, and is never far behind."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self


class WriteBehind:
    """Runs tasks in a thread of its own, in order, while the caller makes the next one; at most `waiting` are not done.

    An error of a task comes out of a later `submit`, or of the end of the block. Leaving the block by an error drops what has
    not begun and waits for what has.
    """

    def __init__(self, waiting: int) -> None:
        self._pool, self._waiting = ThreadPoolExecutor(1, "write-behind"), waiting
        self._pending: deque[Future[Any]] = deque()

    def __enter__(self) -> Self:
        return self

    def submit(self, task: Callable[[], Any]) -> None:
        """Run a task after those before it. Raises what an earlier task raised."""
        self._pending.append(self._pool.submit(task))
        while len(self._pending) > self._waiting:
            self._pending.popleft().result()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            while self._pending and error is None:
                self._pending.popleft().result()
        finally:
            # Also where a task failed: nothing after it may run.
            self._pool.shutdown(wait=True, cancel_futures=True)
