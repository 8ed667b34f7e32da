"""Targets, histories and training events: who may meet whom, and when."""

from collections.abc import Iterator

import numpy as np

from retrieval.data.times import SECONDS_FROM
from retrieval.evaluation.leaks.abstract import AbstractCheck, Chunk, as_rows, met
from retrieval.evaluation.leaks.evidence import Evidence, Rows
from retrieval.evaluation.leaks.findings import Finding

_PART = {"valid": "validation", "test": "test"}


class Targets(AbstractCheck):
    """No target among what is learned from, nor among what its own user is seen with."""

    kinds = ("target-in-history", "test-target-trained", "validation-target-trained", "held-out-user-trained")

    def applies(self, kind: str) -> bool:
        if kind == "held-out-user-trained":
            return self.evidence.users_apart
        return self.evidence.timed and (kind != "validation-target-trained" or "valid" in self.evidence.parts)

    def look(self, chunk: Chunk) -> None:
        for part, targets in chunk.targets.items():
            name = _PART.get(part, part)
            if self.evidence.timed:
                self._same(chunk.training, targets, f"{name}-target-trained", "training events")
                self._same(chunk.histories[part], targets, "target-in-history", f"histories of {name} users")
            if self.evidence.users_apart:
                held = np.isin(chunk.training.users, targets.users)
                self.add("held-out-user-trained", f"training events of {name} users", chunk.training, held)

    def _same(self, events: Rows, targets: Rows, kind: str, where: str) -> None:
        pairs = met(events, targets, self.evidence.n_items)
        same = pairs.filter(pairs["times"] == pairs["target_time"]).unique(["users", "places"], maintain_order=True)
        self.add(kind, where, as_rows(same))


class Moments(AbstractCheck):
    """Nothing is later than it may be."""

    kinds = ("history-past-target", "history-after-cut", "event-after-cut", "tie-across-cut", "target-outside-window")

    def __init__(self, evidence: Evidence) -> None:
        super().__init__(evidence)
        self._tied = dict.fromkeys(evidence.parts, 0)

    def applies(self, kind: str) -> bool:
        if kind in ("history-past-target", "target-outside-window") and not self.evidence.timed:
            return False
        if kind == "history-past-target":
            return True
        return self.evidence.cuts is not None and not (kind == "history-after-cut" and self.evidence.sees_window)

    def look(self, chunk: Chunk) -> None:
        self._training(chunk.training)
        for part, targets in chunk.targets.items():
            history = chunk.histories[part]
            if self.evidence.timed:
                self._order(part, history, targets, chunk.users)
            self._window(part, history, targets)

    def remarks(self) -> Iterator[str]:
        for part, users in self._tied.items():
            if users:
                yield (
                    f"{users:,} {_PART.get(part, part)} users have a target at the same time as their last visible event: the log's own"
                    " order, and not time, says which came first."
                )

    def _training(self, training: Rows) -> None:
        cuts = self.evidence.cuts
        if cuts is not None:
            self.add("event-after-cut", "training events", training, training.times > cuts.valid_from)
            self.add("tie-across-cut", "training events", training, training.times == cuts.valid_from)

    def _order(self, part: str, history: Rows, targets: Rows, users: slice) -> None:
        first = np.full(users.stop - users.start, np.iinfo(np.int64).max)
        np.minimum.at(first, targets.users - users.start, targets.times)
        asked = first[history.users - users.start]
        self.add("history-past-target", f"histories of {_PART.get(part, part)} users", history, history.times > asked)
        self._tied[part] += len(np.unique(history.users[history.times == asked]))

    def _window(self, part: str, history: Rows, targets: Rows) -> None:
        cuts, name = self.evidence.cuts, _PART.get(part, part)
        if cuts is None:
            return
        begin, end = cuts.window("valid" if part == "valid" else "test")
        if self.evidence.timed:
            self.add("target-outside-window", f"{name} targets", targets, (targets.times < begin) | (targets.times >= end))
        if not self.evidence.sees_window:
            self.add("history-after-cut", f"histories of {name} users", history, history.times >= begin)


class Units(AbstractCheck):
    """One unit of time in one column: seconds among milliseconds make a past of the future, or the other way round."""

    kinds = ("time-units-mixed",)
    _SAMPLE = 1 << 20

    def __init__(self, evidence: Evidence) -> None:
        super().__init__(evidence)
        times = evidence.log.times
        sample = np.asarray(times[:: max(1, len(times) // self._SAMPLE)])
        self._usual = float(np.median(sample)) if len(sample) else 0.0

    def applies(self, kind: str) -> bool:  # noqa: ARG002 (one kind)
        # A log whose clock starts near 0 passes through all sizes.
        return self.evidence.in_seconds and self._usual >= SECONDS_FROM

    def look(self, chunk: Chunk) -> None:
        if not self.applies(self.kinds[0]):
            return
        for part, targets in chunk.targets.items():
            self._units(f"{_PART.get(part, part)} targets", targets)
        self._units("training events", chunk.training)

    def _units(self, where: str, rows: Rows) -> None:
        factor = np.abs(np.log10(np.maximum(rows.times, 1) / self._usual))
        # A log of years lies within a factor of two of itself; a stray zero is no other unit.
        strange = (np.abs(factor - np.round(factor / 3) * 3) < 0.3) & (factor > 2) & (rows.times > 0)
        self.add("time-units-mixed", where, rows, strange)


class Retimed(AbstractCheck):
    """Targets that were copied into their users' histories under another time.

    Users do come back to items. How often is read from the same users' own past: as many events before the cut as there
    are targets, each looked for among as many events as the targets are. Copies make targets repeat more than twice as often.
    Where every second event is a return already, only copies of nearly all targets can be told: none or nearly none is new.
    """

    kinds = ("target-retimed",)
    _LEAST, _ERRORS, _NEARLY_ALL = 10, 4.0, 0.98

    def __init__(self, evidence: Evidence) -> None:
        super().__init__(evidence)
        self._repeated = {part: np.zeros(2, np.int64) for part in evidence.parts}
        self._asked = dict.fromkeys(evidence.parts, 0)
        self._examples: dict[str, str] = {}

    def look(self, chunk: Chunk) -> None:
        for part, targets in chunk.targets.items():
            history = chunk.histories[part]
            counts = np.bincount(targets.users - chunk.users.start, minlength=chunk.users.stop - chunk.users.start)
            visible = np.bincount(history.users - chunk.users.start, minlength=len(counts))
            control = np.minimum(counts, visible // 2)  # so many events before the cut stand for the targets
            of_history, of_targets = control[history.users - chunk.users.start], control[targets.users - chunk.users.start]
            before_cut = visible[history.users - chunk.users.start] - history.places
            asked = targets.some(targets.places < of_targets)
            self._asked[part] += len(asked.users)
            self._count(part, 0, history.some(history.places >= of_history), asked)
            self._count(part, 1, history.some(before_cut > of_history), history.some(before_cut <= of_history))

    def _count(self, part: str, column: int, events: Rows, asked: Rows) -> None:
        pairs = met(events, asked, self.evidence.n_items)
        # The same moment is the business of target-in-history.
        if self.evidence.timed:
            pairs = pairs.filter(pairs["times"] != pairs["target_time"])
        pairs = pairs.unique("target", maintain_order=True)
        self._repeated[part][column] += len(pairs)
        if column == 0 and part not in self._examples and len(pairs):
            self._examples[part] = self.evidence.example(pairs["users"][0], pairs["items"][0], pairs["times"][0])

    def findings(self) -> Iterator[Finding]:
        for part, (again, usual) in self._repeated.items():
            if again >= self._LEAST and self._more(int(again), int(usual), self._asked[part]):
                where = f"histories of {_PART.get(part, part)} users ({usual:,} such rows are usual)"
                yield Finding(kind="target-retimed", where=where, rows=int(again), example=self._examples[part])

    def untold(self, kind: str) -> bool:  # noqa: ARG002 (one kind)
        """Where more than half of what users do is a return, copies of some targets look like habits."""
        return any(2 * usual > self._asked[part] for part, (_, usual) in self._repeated.items())

    def _more(self, again: int, usual: int, asked: int) -> bool:
        """Whether targets repeat surely (two shares of as many) and far more often than is usual."""
        share = (again + usual) / (2 * asked)
        errors = (again - usual) / max(1.0, 2 * asked * share * (1 - share)) ** 0.5
        new, usually_new = asked - again, asked - usual
        far = again > 2 * usual or (again >= self._NEARLY_ALL * asked and 4 * new < usually_new)
        return errors > self._ERRORS and far
