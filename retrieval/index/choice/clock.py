"""Times that hold on a busy machine."""

import statistics
import time
from collections.abc import Callable

import numpy as np

_SIDE, _REPEATS, _MOST = 384, 3, 5
_SLOW = 1.15


class Clock:
    """Core-seconds of calls. A fixed product is timed beside each: where it is slow, so was the machine, and the call is repeated.

    on_gpu: count wall time, because a GPU works while its process sleeps.
    """

    def __init__(self, *, on_gpu: bool = False) -> None:
        self._now = time.perf_counter if on_gpu else time.process_time
        self._matrix = np.random.default_rng(0).standard_normal((_SIDE, _SIDE)).astype(np.float32)
        self._best = min(self._product() for _ in range(20))
        self.repeated = 0

    @property
    def multiply_add(self) -> float:
        """Core-seconds of one multiply and add of a large float32 product."""
        return self._best / _SIDE**3

    def seconds(self, call: Callable[[], object]) -> float:
        """The median of three calls in quiet moments, or of five in any where there are not three."""
        every: list[float] = []
        quiet: list[float] = []
        while len(quiet) < _REPEATS and len(every) < _MOST:
            before, taken, after = self._product(), self._timed(call), self._product()
            self._best = min(self._best, before, after)
            every.append(taken)
            if max(before, after) <= _SLOW * self._best:
                quiet.append(taken)
        self.repeated += len(every) - len(quiet)
        return statistics.median(quiet if len(quiet) == _REPEATS else every)

    def _product(self) -> float:
        # Of three, so that a single interruption is no verdict.
        return min(self._timed(lambda: self._matrix @ self._matrix) for _ in range(3))

    def _timed(self, call: Callable[[], object]) -> float:
        start = self._now()
        call()
        return self._now() - start


def latency(call: Callable[[int], object], count: int) -> float:
    """Wall seconds that 95 of 100 of `count` calls stay below; each is the better of three, for interruptions are not its own."""
    taken = []
    for number in range(count):
        starts = []
        for _ in range(3):
            start = time.perf_counter()
            call(number)
            starts.append(time.perf_counter() - start)
        taken.append(min(starts))
    return float(np.quantile(taken, 0.95))
