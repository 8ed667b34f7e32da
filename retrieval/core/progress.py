"""Progress with an ETA on standard error: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

_QUIET_SECONDS = 10.0


@runtime_checkable
class Progress(Protocol):
    """Something that can be told how far the work has come."""

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Report `amount` more units done, with a few words for the reader."""


@contextmanager
def progress(label: str, total: int, *, done: int = 0, shown: bool = True) -> Iterator[Progress]:
    """Show progress of `total` units of work, of which `done` are there already; or not, where another process shows it."""
    if not shown:
        yield _Nothing()
    elif sys.stderr.isatty():
        with _bar(label, total, done) as bar:
            yield bar
    else:
        yield _Lines(label, total, done)


@contextmanager
def _bar(label: str, total: int, done: int) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(30),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with RichProgress(*columns, console=Console(stderr=True), transient=False) as display:
        task = display.add_task(label, total=total, completed=done, note="")

        class Bar:
            def advance(self, amount: int = 1, note: str = "") -> None:
                display.update(task, advance=amount)
                if note:
                    display.update(task, note=note)

        yield Bar()


class _Nothing:
    def advance(self, amount: int = 1, note: str = "") -> None:
        """Say nothing."""


class _Lines:
    def __init__(self, label: str, total: int, done: int) -> None:
        self.label, self.total, self.done, self.first = label, total, done, done
        self.start = self.shown = time.monotonic()

    def advance(self, amount: int = 1, note: str = "") -> None:
        self.done += amount
        now = time.monotonic()
        if now - self.shown < _QUIET_SECONDS:
            return
        self.shown = now
        left = (now - self.start) / max(1, self.done - self.first) * (self.total - self.done)
        print(f"{self.label}: {self.done}/{self.total}, {left:.0f} s left {note}", file=sys.stderr)
