"""explain: users' histories, interests and lists, and what drove each item of them."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrieval.core.errors import DataContractError
from retrieval.data.catalog import rows_of
from retrieval.data.dataset import Dataset
from retrieval.data.splits import first_occurrences, ranges
from retrieval.recall.pools import Lists
from retrieval.report.explained import CategoryHistory, ExplainedInterest, ExplainedUser, ListedItem, NamedItem
from retrieval.report.printable import printable
from retrieval.stages.audience import Audience, Rows, everyone, held_out
from retrieval.stages.recall import Server
from retrieval.stages.served import ServedUsers

if TYPE_CHECKING:
    from retrieval.stages.pipeline import Pipeline

_DRIVERS, _NEAREST, _HISTORY, _NEWEST = 3, 5, 20, 4
Vectors = NDArray[np.float32]


def explain_users(pipeline: "Pipeline", user_ids: Sequence[str], top: int) -> Iterator[ExplainedUser]:
    """Users of the log with their whole history, and the first `top` items of their lists.

    Raises:
        DataContractError: the log has no such user.
    """
    rows = rows_of(pipeline.dataset.users["user_id"], pl.Series(user_ids))
    if (rows < 0).any():
        what = f"no user {user_ids[int(np.argmin(rows))]!r}"
        raise DataContractError(what, where="explain", expected="a user id of the log that passed the filters")
    whole = everyone(pipeline.dataset)
    return _explained(pipeline, whole.of(rows), top)


def explain_sample(pipeline: "Pipeline", count: int, top: int) -> Iterator[ExplainedUser]:
    """At most `count` test users as they looked at the cut, spread evenly over the order of users; hits are marked."""
    audience = held_out(pipeline.dataset)
    places = np.flatnonzero((audience.parts == "test") & (audience.visible > 0))
    picked = places[np.linspace(0, len(places) - 1, min(count, len(places))).astype(int)] if len(places) else places
    return _explained(pipeline, audience.of(picked), top)


def _explained(pipeline: "Pipeline", audience: Audience, top: int) -> Iterator[ExplainedUser]:
    if not len(audience.users):
        return
    index = pipeline.index
    server = Server(pipeline.serving(index, pipeline.probabilities(index)), at_the_cut=audience.at_the_cut)
    for served in server.batches(audience, diagnostics=False):
        for place in range(len(served.lists.rows)):
            yield _Case(server, served, place).explained(top)


class _Case:
    """One user of a batch that was served."""

    def __init__(self, server: Server, served: ServedUsers, place: int) -> None:
        self.server, self.dataset, self.vectors = server, server.serving.dataset, server.vectors
        self.served, self.place = served, place
        encoded = served.encoded
        self.row = int(encoded.audience.users[place])
        self.past = encoded.items[encoded.offsets[place] : encoded.offsets[place + 1]]
        self.read = self.past[-server.serving.users.history :]
        self.interests, self.valid = encoded.vectors[place], encoded.valid[place]
        self.routing = None if encoded.routing is None else encoded.routing[place][:, : len(self.read)]
        self.by_score = {int(row): rank for rank, row in enumerate(served.pools.rows[place, : served.lists.rows.shape[1]], 1) if row >= 0}

    def explained(self, top: int) -> ExplainedUser:
        """Everything about the user that can be shown."""
        targets = self._targets() if self.served.encoded.audience.at_the_cut else None
        return ExplainedUser(
            user=self.dataset.users["user_id"][self.row],
            events=len(self.past),
            targets=None if targets is None else len(targets),
            history=self._named(self.past[-_HISTORY:][::-1]),
            categories=tuple(self._categories()),
            interests=tuple(self._interest(int(number)) for number in np.flatnonzero(self.valid)),
            items=tuple(self._listed(self.served.lists, top, targets)),
            by_score=tuple(self._listed(self._pools(), top, targets, because=False)),
        )

    def _pools(self) -> Lists:
        """The candidates by score, scored as lists are."""
        pools, probabilities = self.served.pools, self.server.serving.probabilities
        lists = Lists(pools.rows, pools.scores, pools.interest)
        return probabilities.of_lists(lists) if probabilities else lists

    def _targets(self) -> set[int]:
        """Distinct items that were hidden from whoever made the list."""
        start, end = (bound[[self.row]] for bound in self.dataset.split.targets("test"))
        positions, _ = ranges(self.dataset.sequences.offsets[[self.row]] + start, end - start)
        return set(self.dataset.sequences.items[positions].tolist())

    def _categories(self) -> Iterator[CategoryHistory]:
        """By number of events, most first."""
        codes, names = self.dataset.catalog.primary_category[self.past], self.dataset.catalog.category_names
        found, counts = np.unique(codes, return_counts=True)
        for code, count in sorted(zip(found.tolist(), counts.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0])):
            newest = self.past[codes == code][::-1]
            distinct = newest[first_occurrences(np.zeros(len(newest), np.int64), newest.astype(np.int64), self.dataset.catalog.n_items)]
            titles = tuple(item.title for item in self._named(distinct[:_NEWEST]))
            yield CategoryHistory(category=names[code] if code >= 0 else None, events=count, newest=titles)

    def _interest(self, number: int) -> ExplainedInterest:
        scores = np.where(self.server.mask.blocked, -np.inf, self.vectors @ self.interests[number])
        return ExplainedInterest(
            interest=number,
            items=int((self.served.lists.interest[self.place] == number).sum()),
            nearest=self._named(_largest(scores, _NEAREST)),
            drivers=self._named(self._drivers(number, self.interests[number])),
            drivers_by="similarity" if self.routing is None else "routing",
        )

    def _listed(self, lists: Lists, top: int, targets: set[int] | None, *, because: bool = True) -> Iterator[ListedItem]:
        scores, interests = lists.scores[self.place], lists.interest[self.place]
        for place, row in enumerate(lists.rows[self.place, : min(top, self.served.lists.rows.shape[1])].tolist()):
            if row < 0:
                return
            number = int(interests[place])
            drivers = self._drivers(number, self.vectors[row]) if because and number >= 0 else np.empty(0, np.int32)
            yield ListedItem(
                **self._named(np.array([row]))[0].model_dump(),
                rank=place + 1,
                score=round(float(scores[place]), 4),
                interest=number,
                hit=None if targets is None else row in targets,
                rank_by_score=self.by_score.get(row),
                driven_by=tuple(item.title for item in self._named(drivers)),
            )

    def _drivers(self, number: int, towards: NDArray[np.float32]) -> NDArray[np.int32]:
        """The events that an interest reads and that speak most for a vector; without routing nothing says what it reads."""
        shares = self.vectors[self.read] @ towards
        if self.routing is not None:
            shares = shares * self.routing[number]
        best = np.argsort(-shares, kind="stable")
        events = self.read[best].astype(np.int64)
        return self.read[best][first_occurrences(np.zeros(len(events), np.int64), events, self.dataset.catalog.n_items)][:_DRIVERS]

    def _named(self, rows: Rows | NDArray[np.int32]) -> tuple[NamedItem, ...]:
        return named_items(self.dataset, rows)


def named_items(dataset: Dataset, rows: Rows | NDArray[np.int32]) -> tuple[NamedItem, ...]:
    """Items as a person knows them, by row of the catalog."""
    frame = dataset.catalog.frame.select("item_id", "title", category=pl.col("categories").list.first())[np.asarray(rows, np.int64)]
    return tuple(
        NamedItem(item_id=item_id, title=title or str(item_id), category=category) for item_id, title, category in frame.iter_rows()
    )


def explanation_lines(user: ExplainedUser) -> list[str]:
    """The explanation for a terminal."""
    lines = [f"user {user.user}: {user.events} events, the last ones first"]
    lines += [_line(item) for item in user.history]
    for interest in user.interests:
        lines.append(f"interest {interest.interest} brought {interest.items} items and is nearest to")
        lines += [_line(item) for item in interest.nearest]
    lines.append("list")
    for item in user.items:
        why = ", ".join(item.driven_by) or ("too little history: popular items" if item.interest < 0 else "its vector")
        mark = "  HIT" if item.hit else ""
        lines.append(f"  {item.rank:>3}. {item.title}  ({item.category or '-'})  interest {item.interest}, because of: {why}{mark}")
    return [printable(line) for line in lines]


def _line(item: NamedItem) -> str:
    return f"  {item.title}  ({item.category or '-'})"


def _largest(scores: NDArray[np.floating], count: int) -> Rows:
    """Places of the largest scores, largest first, equals by place."""
    some = np.argpartition(-scores, min(count, len(scores) - 1))[:count]
    some = np.sort(some[np.isfinite(scores[some])])
    return some[np.argsort(-scores[some], kind="stable")]
