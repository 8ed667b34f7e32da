"""Items: their popularity, which of them are known, and which stand in lists."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from retrieval.data.catalog import rows_of
from retrieval.data.splits import Positions
from retrieval.evaluation.leaks.abstract import AbstractCheck
from retrieval.evaluation.leaks.dates import dated_fields
from retrieval.evaluation.leaks.findings import Finding
from retrieval.evaluation.tables import batches

_SLACK = 1e-5


class PopularityCounts(AbstractCheck):
    """Nothing is counted that is not a training event: recounted, item by item."""

    kinds = ("popularity-from-future",)

    def applies(self, kind: str) -> bool:  # noqa: ARG002 (one kind)
        return bool(self.evidence.popularity)

    def findings(self) -> Iterator[Finding]:
        evidence = self.evidence
        for name, popularity in evidence.popularity.items():
            most = (evidence.trained.counts if popularity.at_most is None else popularity.at_most).astype(np.float64)
            given = popularity.counts.astype(np.float64)
            over = np.flatnonzero(given > most + _SLACK * np.maximum(1.0, np.abs(most)))
            if len(over):
                whole = " (it counts the whole log)" if np.array_equal(given, evidence.overall.counts) else ""
                item = int(over[np.argmax(given[over] - most[over])])
                example = f"item {evidence.items[item]!r}: {given[item]:g} where training gives {most[item]:g}"
                yield Finding(kind=self.kinds[0], where=f"{name}{whole}", rows=len(over), example=example)


class KnownItems(AbstractCheck):
    """The truth holds targets only, and where the protocol asks for known items, none that no training event names."""

    kinds = ("future-item-known", "truth-without-target")

    def applies(self, kind: str) -> bool:
        if kind == "future-item-known":
            return self.evidence.known_only
        return any(part.truth is not None for part in self.evidence.parts.values())

    def findings(self) -> Iterator[Finding]:
        for name, part in self.evidence.parts.items():
            if part.truth is None:
                continue
            users, items = part.truth["user"].to_numpy(), part.truth["item"].to_numpy()
            where = f"truth, split {name}"
            if self.evidence.known_only:
                yield from self._finding("future-item-known", where, users, items, self.evidence.trained.counts[items] == 0)
            yield from self._finding("truth-without-target", where, users, items, ~self._is_target(name, users, items))

    def _is_target(self, name: str, users: Positions, items: Positions) -> NDArray[np.bool_]:
        found, n_items = np.zeros(len(users), np.bool_), self.evidence.n_items
        pairs = users * n_items + items
        for chunk in self.evidence.chunks():
            some = np.flatnonzero((users >= chunk.start) & (users < chunk.stop))
            found[some] = np.isin(pairs[some], self.evidence.parts[name].targets.of(chunk).pairs(n_items))
        return found

    def _finding(self, kind: str, where: str, users: Positions, items: Positions, wrong: NDArray[np.bool_]) -> Iterator[Finding]:
        if wrong.any():
            first = int(wrong.argmax())
            example = self.evidence.example(int(users[first]), int(items[first]))
            yield Finding(kind=kind, where=where, rows=int(wrong.sum()), example=example)


class Candidates(AbstractCheck):
    """Lists hold what could be known when they were made: no item whose first event lies in the window, unless a field of it is dated
    before. Of an item without any event nothing is known.
    """

    kinds = ("candidate-from-future",)

    def applies(self, kind: str) -> bool:  # noqa: ARG002 (one kind)
        return bool(self.evidence.candidates) and self.evidence.cuts is not None and not self.evidence.fresh_items

    def findings(self) -> Iterator[Finding]:
        if not self.applies(self.kinds[0]):
            return
        cuts = self.evidence.cuts
        assert cuts is not None  # noqa: S101 - it applies
        unborn = (self.evidence.overall.counts > 0) & (self.evidence.overall.first >= cuts.test_from)
        for _, moments in dated_fields(self.evidence):
            unborn &= ~(moments < cuts.test_from)
        rows, example = 0, ""
        for frame in batches(self.evidence.candidates, ("user_id", "item_id")):
            known = rows_of(self.evidence.items, frame["item_id"])
            wrong = np.flatnonzero((known >= 0) & unborn[known])
            if len(wrong) and not rows:
                user, item = frame.row(int(wrong[0]))
                example = f"user {user!r}, item {item!r}"
            rows += len(wrong)
        if rows:
            yield Finding(kind=self.kinds[0], where="candidates", rows=rows, example=example)
