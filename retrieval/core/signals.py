"""Signals that wait until the work in hand is whole."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

from retrieval.core.errors import InterruptedRunError


@dataclass
class Received:
    """The number of the first signal that came, 0 while none has."""

    number: int = 0


@contextlib.contextmanager
def deferred_signals() -> Iterator[Received]:
    """Note SIGINT and SIGTERM instead of dying of them; a second one of either kills at once.

    Outside the main thread Python cannot handle signals, and nothing is deferred.
    """
    received = Received()
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _: FrameType | None) -> None:
        received.number = number
        for each in before:
            signal.signal(each, signal.SIG_DFL)

    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def raised_termination() -> Iterator[None]:
    """SIGTERM raises InterruptedRunError instead of killing, so that whoever runs can say what became of the run.

    Outside the main thread, and where somebody else handles it already, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def stop(number: int, _: FrameType | None) -> None:
        raise InterruptedRunError(
            "stopped by SIGTERM", signal_number=number, remedy="run the same command again, and it goes on from there"
        )

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
