"""The files of candidates: parts of whole batches, written behind the search, found again after a kill."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from retrieval.core.artifacts import StagedArtifact
from retrieval.core.parts import ResumableParts
from retrieval.core.streams import WriteBehind
from retrieval.data.dataset import Dataset
from retrieval.index.pools import Pools
from retrieval.recall.writer import lists_frame, write_frame
from retrieval.stages.served import ServedUsers
from retrieval.stages.user_vectors import PART_USERS, EncodedUsers, part_users, routing_entropy, vectors_frame

RECALLED = "recalled"
"""Pools in the order of recall, where they are re-scored."""
DIAGNOSTICS = ("pool", RECALLED, "interests", "users")
# Rows of a part's largest table, at most, where a batch has no more; some 30 bytes each.
_PART_ROWS = 1 << 23
_COUNTS = ("users", "users_with_a_list", "lists_shorter_than_n")
Tables = dict[str, list[pl.DataFrame]]


def candidate_part_users(batch_users: int, rows_a_user: int) -> int:
    """Users of a part, so that its tables can be held."""
    return part_users(batch_users, min(PART_USERS, _PART_ROWS // rows_a_user))


def part_name(kind: str, number: int) -> str:
    """The file of a kind of table in part `number`."""
    return f"{kind}-{number:05d}.parquet"


class CandidateFiles:
    """Makes tables of batches and writes them, part by part, in the writer's thread.

    dataset: whose ids are written. n: length of a list. diagnostics: whether pools, interests and users are written, too.
    """

    def __init__(self, dataset: Dataset, n: int, parts: ResumableParts, writer: WriteBehind, *, diagnostics: bool) -> None:
        self._dataset, self._n, self._parts, self._writer = dataset, n, parts, writer
        self._diagnostics = diagnostics
        self._summaries: list[dict[str, int]] = []

    def add(self, number: int, batches: Callable[[], Iterable[ServedUsers]]) -> None:
        """Write part `number`, or find it written by an earlier process; batches are then not made."""
        name, tables, counts = f"part-{number:05d}", _no_tables(), dict.fromkeys(_COUNTS, 0)
        if not self._parts.has(name):
            for batch in batches():
                self._writer.submit(partial(self._tabulate, batch, tables, counts))
        self._writer.submit(partial(self._finish, name, number, tables, counts))

    def totals(self) -> dict[str, int]:
        """Sums over all parts, once the writer has ended."""
        return sum_counts(self._summaries)

    def _finish(self, name: str, number: int, tables: Tables, counts: Mapping[str, int]) -> None:
        tables["part"] = tables["part"] or [self._nobody()]
        self._summaries.append(self._parts.ensure(name, partial(_write, tables, number, counts)))
        tables.clear()

    def _nobody(self) -> pl.DataFrame:
        """The columns of lists without a row."""
        return lists_frame(self._dataset.users["user_id"].head(0), self._dataset.catalog.item_ids, Pools.empty(0, self._n))

    def _tabulate(self, batch: ServedUsers, tables: Tables, counts: dict[str, int]) -> None:
        names, items = self._dataset.users["user_id"].gather(batch.encoded.audience.users), self._dataset.catalog.item_ids
        lengths = (batch.lists.rows >= 0).sum(axis=1)
        counted = (len(lengths), int((lengths > 0).sum()), int((lengths < self._n).sum()))
        counts.update({name: counts[name] + count for name, count in zip(_COUNTS, counted, strict=True)})
        tables["part"].append(lists_frame(names, items, batch.lists))
        if self._diagnostics:
            pools = lists_frame(names, items, batch.pools)
            # Where there are two orders, both have ranks: by them evaluation reads pieces of a file.
            tables["pool"].append(pools.drop("rank") if batch.recalled is None else pools)
            if batch.recalled is not None:
                tables[RECALLED].append(lists_frame(names, items, batch.recalled).drop("score", "interest"))
            tables["interests"].append(_interests_frame(names, batch.encoded))
            tables["users"].append(_users_frame(names, batch))


def sum_counts(summaries: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Numbers of users, of those with a list and of short lists, over some parts or shards."""
    found = list(summaries)
    return {name: sum(int(each[name]) for each in found) for name in _COUNTS}


def _no_tables() -> Tables:
    return {kind: [] for kind in ("part", *DIAGNOSTICS)}


def _write(tables: Tables, number: int, counts: Mapping[str, int], part: StagedArtifact) -> None:
    for kind, frames in tables.items():
        if frames:
            write_frame(pl.concat(frames), part.path(part_name(kind, number)))
    part.summary |= counts


def _interests_frame(names: pl.Series, encoded: EncodedUsers) -> pl.DataFrame:
    frame = vectors_frame(names, encoded)
    if encoded.routing is None:
        return frame.with_columns(routing_entropy=pl.lit(None, pl.Float32))
    return frame.with_columns(routing_entropy=routing_entropy(encoded.routing)[encoded.valid])


def _users_frame(names: pl.Series, batch: ServedUsers) -> pl.DataFrame:
    encoded = batch.encoded
    return pl.DataFrame(
        {
            "user_id": names,
            "split": encoded.audience.parts,
            "events": encoded.audience.visible.astype(np.int32),
            "interests": encoded.valid.sum(axis=1).astype(np.int32),
            "overlap": pl.Series(batch.overlap, dtype=pl.Float32, nan_to_null=True),
        }
    )
