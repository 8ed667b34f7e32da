"""Ranked lists against the truth: a dense matrix of items, and the rank of every target, one row a user of the truth.

Only users of the truth are judged. A user without candidates keeps an empty row and scores 0, because leaving out
those the system failed to serve would flatter it. Candidates of other users are skipped and counted.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from retrieval.core.errors import DataContractError
from retrieval.evaluation import list_kernels
from retrieval.evaluation.merged import merged_lists
from retrieval.evaluation.settings import EvaluationSettings
from retrieval.evaluation.tables import (
    Between,
    as_ids,
    batches,
    empty_table,
    parquet_files,
    read_table,
    require_columns,
    require_ranks,
    require_scores,
)
from retrieval.evaluation.truth import GroundTruth, truth_blocks
from retrieval.evaluation.vocabulary import Vocabulary, require_same_type
from retrieval.index.threads import over_chunks

Numbers = npt.NDArray[np.int32] | npt.NDArray[np.int64]
Runs = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class JudgedLists:
    """Row u is the list of `users[u]`; column r is rank r + 1.

    `items` int32[U, C]: code of the item, -1 for none; the first codes are the rows of the catalog, where one was given.
    `origin` int16[U, C]: the interest that brought it, -1 for none; no columns where candidates do not say.
    `offsets` int64[U+1], `targets` int32[T], `ranks` int32[T]: the targets of each user, and their ranks in the list, 0
    where they are not there. `union` float64[U, 2 Q]: `union_recall` and `union_size`, where lists were one an interest.
    `counts`: what was judged and what was skipped. `first`: place of the first user among all users.
    """

    users: pl.Series
    items: npt.NDArray[np.int32]
    origin: npt.NDArray[np.int16]
    offsets: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int32]
    ranks: npt.NDArray[np.int32]
    counts: dict[str, int]
    union: npt.NDArray[np.float64] | None = None
    first: int = 0

    def part(self, start: int, stop: int) -> "JudgedLists":
        """The users at start..stop; the counts stay those of all."""
        low, high = self.offsets[[start, stop]]
        return JudgedLists(
            self.users[start:stop],
            self.items[start:stop],
            self.origin[start:stop],
            self.offsets[start : stop + 1] - low,
            self.targets[low:high],
            self.ranks[low:high],
            self.counts,
            None if self.union is None else self.union[start:stop],
            self.first + start,
        )


def judged_blocks(
    candidates: Sequence[Path] | pl.DataFrame,
    truth: Path | GroundTruth,
    split: str | None,
    catalog: pl.Series | None,
    settings: EvaluationSettings,
    threads: int = 0,
) -> Iterator[JudgedLists]:
    """Judge candidates: columns user_id, item_id and rank (from 1), or score (higher is better) where there is no rank.

    A block of `settings.block_users` users at a time; files should be sorted by user_id then, or each block reads all of
    them. Scores are sorted first, ties by item id. Ranks beyond the deepest cut-off are skipped.

    Raises:
        DataContractError: a column is missing, ids are null or of other types than the truth's, a rank is below 1,
            or a list has two items at one rank or one item twice.
    """
    first = 0
    for between, known in truth_blocks(truth, split, settings.block_users):
        lists = _Lists(known, Vocabulary.of(known.pairs["item_id"], catalog, threads), settings, first, threads)
        for where, frame in _ranked(candidates, between, settings):
            lists.add(frame, where)
        yield lists.judged()
        first += len(known.users)


def _ranked(
    candidates: Sequence[Path] | pl.DataFrame, between: Between, settings: EvaluationSettings
) -> Iterable[tuple[object, pl.DataFrame]]:
    """Tables of user_id, item_id, rank and what else is known, and where they come from."""
    if isinstance(candidates, pl.DataFrame):
        require_columns(candidates.columns, ("user_id", "item_id"), "candidates")
        yield "candidates", _with_ranks(between.keep(candidates), "candidates", settings)
        return
    files = parquet_files(candidates)
    where, known = files[0].parent if len(files) > 1 else files[0], empty_table(files[0]).columns
    if "rank" in known and settings.lists == "merged":
        columns = ["user_id", "item_id", "rank", *(["interest"] if "interest" in known else [])]
        yield from ((where, between.keep(part)) for part in batches(files, columns, between=between))
    else:
        columns = ["user_id", "item_id", *(name for name in ("rank", "score", "interest") if name in known)]
        require_columns(known, ("user_id", "item_id") if "rank" in known else ("user_id", "item_id", "score"), where)
        yield where, _with_ranks(read_table(files, columns, between), where, settings)


def _with_ranks(frame: pl.DataFrame, where: object, settings: EvaluationSettings) -> pl.DataFrame:
    if settings.lists == "per-interest":
        return merged_lists(frame, where, settings)
    return frame if "rank" in frame.columns else _by_score(frame, where)


def _by_score(frame: pl.DataFrame, where: object) -> pl.DataFrame:
    require_columns(frame.columns, ("user_id", "item_id", "score"), where)
    require_scores(frame["score"], where)
    ordered = frame.sort("user_id", -pl.col("score").cast(pl.Float64), "item_id")
    return ordered.with_columns(rank=pl.int_range(1, pl.len() + 1).over("user_id"))


@dataclass
class _Lists:
    truth: GroundTruth
    vocabulary: Vocabulary
    settings: EvaluationSettings
    first: int
    threads: int
    items: npt.NDArray[np.int32] = field(init=False)
    origin: npt.NDArray[np.int16] = field(init=False)
    unions: list[pl.DataFrame] = field(default_factory=list)
    others: int = 0
    longest: int = 0

    def __post_init__(self) -> None:
        self.items = np.full((len(self.truth.users), self.settings.depth), -1, np.int32)
        self.origin = np.empty((len(self.items), 0), np.int16)

    def add(self, frame: pl.DataFrame, where: object) -> None:
        """Put the items of a table at their user's row and their rank's column."""
        if frame.is_empty():
            return
        users, items = as_ids(frame["user_id"], where), as_ids(frame["item_id"], where)
        require_same_type(users, self.truth.users["user_id"], where)
        require_same_type(items, self.truth.pairs["item_id"], where)
        rows, lengths = self._runs(users)
        known = rows >= 0
        if not known.all():
            kept = pl.Series(np.repeat(known, lengths))
            rows, lengths, items, frame = rows[known], lengths[known], items.filter(kept), frame.filter(kept)
            self.others += len(kept) - len(frame)
        if len(rows):
            self._add((rows, lengths), items, frame, where)

    def _add(self, runs: Runs, items: pl.Series, frame: pl.DataFrame, where: object) -> None:
        ranks = self._ranks(frame["rank"], where)
        if "best" in frame.columns:
            self.unions.append(pl.DataFrame({"user": np.repeat(*runs), "item_id": items, "best": frame["best"].cast(pl.Int64)}))
        self._place(runs, ranks, self.vocabulary.encode(items), self._origins(frame), where)

    def _runs(self, users: pl.Series) -> Runs:
        """Rows of users, -1 for one who is not judged, and how many rows of the table each has side by side, as a rule all."""
        runs = users.rle()
        known = pl.DataFrame([runs.struct.field("value").alias("user_id")]).join(
            self.truth.users, on="user_id", how="left", maintain_order="left"
        )
        return known["user"].cast(pl.Int64).fill_null(-1).to_numpy(), runs.struct.field("len").cast(pl.Int64).to_numpy()

    def _ranks(self, ranks: pl.Series, where: object) -> Numbers:
        require_ranks(ranks, where)
        found = _numbers(ranks)
        self.longest = max(self.longest, int(found.max()))
        return found

    def _origins(self, frame: pl.DataFrame) -> Numbers:
        known = "interest" in frame.columns and frame["interest"].dtype.is_integer()
        if not known:
            return np.empty(0, np.int32)
        if not self.origin.shape[1]:
            self.origin = np.full(self.items.shape, -1, np.int16)
        return _numbers(frame["interest"])

    def _place(self, runs: Runs, ranks: Numbers, codes: npt.NDArray[np.int32], origin: Numbers, where: object) -> None:
        target = self.origin if len(origin) else self.origin[:, :0]
        row, rank = list_kernels.place_rows(runs, ranks, codes, origin, self.items, target)
        if row >= 0:
            user = self.truth.users["user_id"][int(row)]
            remedy = "evaluate with lists = 'per-interest' if these are several lists a user" if len(origin) else ""
            raise DataContractError(f"user {user!r} has two items at rank {rank}", where=where, expected="one", remedy=remedy)

    def judged(self) -> JudgedLists:
        """Find the targets in the lists. Raises DataContractError when a list holds an item twice: it would count as two hits."""
        pairs = self.truth.pairs
        # They are in order of user, as the users are.
        counts = pairs["user_id"].rle().struct.field("len").cast(pl.Int64).to_numpy()
        offsets, targets = np.concatenate([[0], np.cumsum(counts)]), self.vocabulary.encode(pairs["item_id"])
        ranks, repeated = np.zeros(len(targets), np.int32), np.zeros(len(self.items), np.bool_)
        over_chunks(list_kernels.find_hits, len(self.items), self.threads, self.items, (offsets, targets), ranks, repeated)
        if repeated.any():
            user = self.truth.users["user_id"][int(repeated.argmax())]
            raise DataContractError(f"the list of user {user!r} has an item twice", where="candidates", expected="every item once")
        numbers = self._counts(len(targets))
        return JudgedLists(
            self.truth.users["user_id"], self.items, self.origin, offsets, targets, ranks, numbers, self._union(counts), self.first
        )

    def _union(self, targets: npt.NDArray[np.int64]) -> npt.NDArray[np.float64] | None:
        """float64[U, 2 Q]: share of the targets, and number of items, in the union of the first n of every interest."""
        if self.settings.lists != "per-interest":
            return None
        users, found = len(self.items), pl.concat(self.unions) if self.unions else None
        counts = np.zeros((2, len(self.settings.cutoffs), users))
        if found is not None:
            pairs = pl.DataFrame({"user": np.repeat(np.arange(users), targets), "item_id": self.truth.pairs["item_id"]})
            hits = pairs.join(found, on=["user", "item_id"], how="inner")
            for row, table in enumerate((hits, found)):
                for column, n in enumerate(self.settings.ascending):
                    counts[row, column] = np.bincount(table.filter(pl.col("best") <= n)["user"].to_numpy(), minlength=users)
        counts[0] /= targets
        return counts.reshape(-1, users).T

    def _counts(self, targets: int) -> dict[str, int]:
        catalog = self.vocabulary.n_catalog
        return {
            "users": len(self.items),
            "targets": targets,
            "users_without_candidates": int((self.items < 0).all(axis=1).sum()),
            "longest_list": self.longest,
            "rows_of_other_users": self.others,
            "rows_outside_catalog": int((self.items >= catalog).sum()) if catalog else 0,
        }


def _numbers(column: pl.Series) -> Numbers:
    """Whole numbers, -1 for none; the usual kinds are not copied."""
    known = column.fill_null(-1) if column.null_count() else column
    return (known if known.dtype in (pl.Int32, pl.Int64) else known.cast(pl.Int64)).to_numpy()
