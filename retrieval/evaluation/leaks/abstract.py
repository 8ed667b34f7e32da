"""The interface of a check, and how findings are collected over chunks of users."""

import abc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrieval.data.splits import Positions
from retrieval.evaluation.leaks.evidence import Evidence, Rows, Segments
from retrieval.evaluation.leaks.findings import Finding


@dataclass(frozen=True)
class Chunk:
    """Some users, and what is gathered of them once for all checks."""

    evidence: Evidence
    users: slice

    @cached_property
    def training(self) -> Rows:
        """What is learned from."""
        return self.evidence.training.of(self.users)

    @cached_property
    def histories(self) -> Mapping[str, Rows]:
        """What users with targets are seen with, by part."""
        return {name: self._of(part.history, part.targets) for name, part in self.evidence.parts.items()}

    @cached_property
    def targets(self) -> Mapping[str, Rows]:
        """What is asked for, by part."""
        return {name: part.targets.of(self.users) for name, part in self.evidence.parts.items()}

    def _of(self, history: Segments, targets: Segments) -> Rows:
        rows = np.arange(self.users.start, self.users.stop)
        return history.of(rows[targets.lengths[self.users] > 0])


class AbstractCheck(abc.ABC):
    """Looks at all chunks, one after the other, and then says what it found."""

    kinds: ClassVar[tuple[str, ...]]

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self._found: dict[tuple[str, str], Finding] = {}

    def applies(self, kind: str) -> bool:  # noqa: ARG002 (a check may be told by kind)
        """Whether a kind can be looked for in this evidence."""
        return True

    def untold(self, kind: str) -> bool:  # noqa: ARG002 (a check may be told by kind)
        """Whether what was looked at cannot tell a leak of a kind from what is usual; asked after the last chunk."""
        return False

    def look(self, chunk: Chunk) -> None:  # noqa: B027 (a check may need no pass over the events)
        """Look at some users."""

    def findings(self) -> Iterator[Finding]:
        """What was found."""
        yield from self._found.values()

    def remarks(self) -> Iterator[str]:
        """What was noticed and is no leak."""
        yield from ()

    def add(self, kind: str, where: str, rows: Rows, wrong: NDArray[np.bool_] | Positions | None = None) -> None:
        """Add the wrong ones of some events to a finding."""
        wrong_rows = rows if wrong is None else rows.some(wrong)
        if not len(wrong_rows.users):
            return
        before = self._found.get((kind, where))
        user, item, time = (int(column[0]) for column in wrong_rows[:3])
        example = before.example if before else self.evidence.example(user, item, time)
        count = len(wrong_rows.users) + (before.rows if before else 0)
        self._found[kind, where] = Finding(kind=kind, where=where, rows=count, example=example)


def met(events: Rows, targets: Rows, n_items: int) -> pl.DataFrame:
    """The pairs of an event and a target with the same user and item: user, item, time and place of the event, target_time, and target,
    the target's number.
    """
    wanted = np.unique(targets.pairs(n_items))
    keys = events.pairs(n_items)
    place = np.minimum(np.searchsorted(wanted, keys), max(len(wanted) - 1, 0))
    same = wanted[place] == keys if len(wanted) else np.zeros(len(keys), np.bool_)
    left = pl.DataFrame(events.some(same)._asdict())
    right = pl.DataFrame({"users": targets.users, "items": targets.items, "target_time": targets.times}).with_row_index("target")
    return left.join(right, on=["users", "items"], how="inner", maintain_order="left")


def as_rows(frame: pl.DataFrame) -> Rows:
    """The events of pairs."""
    return Rows(*(frame[name].to_numpy() for name in Rows._fields))
