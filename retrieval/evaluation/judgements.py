"""Ranked lists against the truth: a dense matrix of items and hits, one row a user of the truth.

Only users of the truth are judged. A user without candidates keeps an empty row and scores 0, because leaving out
those the system failed to serve would flatter it. Candidates of other users are skipped and counted.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from retrieval.core.errors import DataContractError
from retrieval.evaluation.tables import as_ids, batches, empty_table, parquet_files, read_table, require_columns

_BLOCK: Final = 4096


@dataclass(frozen=True)
class GroundTruth:
    """`pairs`: user_id, item_id, each pair once. `users`: user_id and its row (UInt32), sorted by user_id."""

    pairs: pl.DataFrame
    users: pl.DataFrame


@dataclass(frozen=True)
class JudgedLists:
    """Row u is the list of `users[u]`; column r is rank r + 1.

    `items` int32[U, C]: code of the item, -1 for none; the first codes are the rows of the catalog, where one was given.
    `hits` bool[U, C]. `targets` int64[U], at least 1. `counts`: what was judged and what was skipped.
    """

    users: pl.Series
    items: npt.NDArray[np.int32]
    hits: npt.NDArray[np.bool_]
    targets: npt.NDArray[np.int64]
    counts: dict[str, int]


def read_truth(path: Path, split: str | None) -> GroundTruth:
    """Read (user_id, item_id) and keep one split, where the file has a `split` column and `split` is not None.

    Raises:
        DataContractError: the file cannot be read, lacks a column, has bad ids, or no row of that split.
    """
    columns = ["user_id", "item_id"]
    known = empty_table(parquet_files([path])[0]).columns
    frame = read_table([path], [*columns, "split"] if split is not None and "split" in known else columns)
    if "split" in frame.columns:
        kept = frame.filter(pl.col("split").cast(pl.String) == split)
        if kept.is_empty() and not frame.is_empty():
            names = ", ".join(sorted(str(name) for name in frame["split"].unique()))
            raise DataContractError(f"has no rows with split '{split}'", where=path, expected=f"one of: {names}")
        frame = kept
    return ground_truth(frame, where=path)


def ground_truth(frame: pl.DataFrame, where: object = "truth") -> GroundTruth:
    """Truth from a table with user_id and item_id; equal rows count once. Raises DataContractError when it is empty."""
    require_columns(frame.columns, ("user_id", "item_id"), where)
    if frame.is_empty():
        raise DataContractError("has no rows, so there is nobody to evaluate", where=where)
    pairs = pl.DataFrame([as_ids(frame["user_id"], where), as_ids(frame["item_id"], where)]).unique()
    return GroundTruth(pairs, pairs.select(pl.col("user_id").unique().sort()).with_row_index("user"))


def judge(candidates: Sequence[Path] | pl.DataFrame, truth: GroundTruth, catalog: pl.Series | None, depth: int) -> JudgedLists:
    """Judge candidates: columns user_id, item_id and rank (from 1), or score (higher is better) where there is no rank.

    With ranks, files are read in batches and memory is 5 bytes x users x depth; scores are sorted first, all rows at
    once, ties by item id. Ranks beyond `depth` are skipped.

    Raises:
        DataContractError: a column is missing, ids are null or of other types than the truth's, a rank is below 1,
            or a list has two items at one rank or one item twice.
    """
    lists = _Lists(truth, _Vocabulary(truth, catalog), depth)
    for where, frame in _ranked(candidates):
        lists.add(frame, where)
    lists.require_distinct_items()
    return lists.judged()


def _ranked(candidates: Sequence[Path] | pl.DataFrame) -> Iterable[tuple[object, pl.DataFrame]]:
    """Tables of user_id, item_id, rank, and where they come from."""
    if isinstance(candidates, pl.DataFrame):
        require_columns(candidates.columns, ("user_id", "item_id"), "candidates")
        ranked = "rank" in candidates.columns
        yield "candidates", candidates.select("user_id", "item_id", "rank") if ranked else _by_score(candidates, "candidates")
        return
    files = parquet_files(candidates)
    where = files[0].parent if len(files) > 1 else files[0]
    if "rank" in empty_table(files[0]).columns:
        yield from ((where, part) for part in batches(files, ("user_id", "item_id", "rank")))
    else:
        yield where, _by_score(read_table(files, ("user_id", "item_id", "score")), where)


def _by_score(frame: pl.DataFrame, where: object) -> pl.DataFrame:
    require_columns(frame.columns, ("user_id", "item_id", "score"), where)
    if not frame["score"].dtype.is_numeric():
        raise DataContractError(f"column 'score' is {frame['score'].dtype}", where=where, expected="numbers")
    score = pl.col("score").cast(pl.Float64)
    if frame.select((score.is_null() | score.is_nan()).any()).item():
        raise DataContractError("column 'score' has null or NaN", where=where)
    ordered = frame.sort("user_id", -score, "item_id")
    return ordered.select("user_id", "item_id", rank=pl.int_range(1, pl.len() + 1).over("user_id"))


class _Vocabulary:
    """Item id -> code: catalog rows first, then whatever else turns up, in order of appearance."""

    def __init__(self, truth: GroundTruth, catalog: pl.Series | None) -> None:
        known = truth.pairs["item_id"].clear() if catalog is None else as_ids(catalog.alias("item_id"), "items")
        _require_same_type(known, truth.pairs["item_id"], "the items table")
        self.n_catalog = len(known)
        self._codes = pl.DataFrame([known]).with_columns(code=pl.int_range(len(known), dtype=pl.Int32))
        if known.n_unique() != len(known):
            raise DataContractError("the items table has an item twice", where="items")

    def encode(self, ids: pl.Series) -> npt.NDArray[np.int32]:
        """int32 codes of item ids; new ids get the next codes."""
        frame = pl.DataFrame([ids.alias("item_id")])
        codes = frame.join(self._codes, on="item_id", how="left", maintain_order="left")["code"]
        if not codes.null_count():
            return codes.to_numpy()
        unseen = frame.filter(codes.is_null()).unique(maintain_order=True)
        first = len(self._codes)
        self._codes = self._codes.vstack(unseen.with_columns(code=pl.int_range(first, first + len(unseen), dtype=pl.Int32)))
        return self.encode(ids)


@dataclass
class _Lists:
    truth: GroundTruth
    vocabulary: _Vocabulary
    depth: int
    items: npt.NDArray[np.int32] = field(init=False)
    others: int = 0
    longest: int = 0

    def __post_init__(self) -> None:
        self.items = np.full((len(self.truth.users), self.depth), -1, np.int32)

    def add(self, frame: pl.DataFrame, where: object) -> None:
        """Put the items of a table at their user's row and their rank's column."""
        frame = self._of_known_users(frame, where)
        if frame.is_empty():
            return
        self._check_ranks(frame["rank"], where)
        frame = frame.filter(pl.col("rank") <= self.depth)
        ranks = frame["rank"].cast(pl.Int64).to_numpy()
        codes = self.vocabulary.encode(frame["item_id"])
        cells = frame["user"].to_numpy().astype(np.int64) * self.depth + ranks - 1
        self._write(cells, codes, where)

    def _of_known_users(self, frame: pl.DataFrame, where: object) -> pl.DataFrame:
        users, items = as_ids(frame["user_id"], where), as_ids(frame["item_id"], where)
        _require_same_type(users, self.truth.users["user_id"], where)
        _require_same_type(items, self.truth.pairs["item_id"], where)
        frame = frame.with_columns(users, items).join(self.truth.users, on="user_id", how="left", maintain_order="left")
        known = frame.filter(pl.col("user").is_not_null())
        self.others += len(frame) - len(known)
        return known

    def _check_ranks(self, ranks: pl.Series, where: object) -> None:
        if not ranks.dtype.is_integer() or ranks.null_count():
            raise DataContractError(
                f"column 'rank' is {ranks.dtype} with {ranks.null_count()} nulls", where=where, expected="whole numbers"
            )
        smallest, largest = int(ranks.min()), int(ranks.max())  # type: ignore[arg-type]
        if smallest < 1:
            raise DataContractError(f"column 'rank' has {smallest}", where=where, expected="ranks from 1")
        self.longest = max(self.longest, largest)

    def _write(self, cells: npt.NDArray[np.int64], codes: npt.NDArray[np.int32], where: object) -> None:
        flat = self.items.reshape(-1)
        taken = flat[cells] >= 0
        # Every row first writes its own number: a row that does not find it again shares its cell with another.
        numbers = np.arange(len(cells), dtype=np.int32)
        flat[cells] = numbers
        clash = taken | (flat[cells] != numbers)
        if clash.any():
            cell = int(cells[clash.argmax()])
            user, rank = self.truth.users["user_id"][cell // self.depth], cell % self.depth + 1
            raise DataContractError(f"user {user!r} has two items at rank {rank}", where=where, expected="one")
        flat[cells] = codes

    def require_distinct_items(self) -> None:
        """Raise DataContractError when a list holds an item twice: it would count as two hits."""
        for start in range(0, len(self.items), _BLOCK):
            ordered = np.sort(self.items[start : start + _BLOCK], axis=1)
            again = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1)
            if again.any():
                user = self.truth.users["user_id"][start + int(again.argmax())]
                raise DataContractError(f"the list of user {user!r} has an item twice", where="candidates", expected="every item once")

    def judged(self) -> JudgedLists:
        """Mark the hits."""
        pairs = self.truth.pairs.join(self.truth.users, on="user_id", how="left")
        rows = pairs["user"].to_numpy().astype(np.int64)
        hits = _hits(self.items, rows, self.vocabulary.encode(pairs["item_id"]))
        shown, catalog = self.items >= 0, self.vocabulary.n_catalog
        counts = {
            "users": len(self.items),
            "targets": len(pairs),
            "users_without_candidates": int((~shown.any(axis=1)).sum()),
            "longest_list": self.longest,
            "rows_of_other_users": self.others,
            "rows_outside_catalog": int((self.items >= catalog).sum()) if catalog else 0,
        }
        return JudgedLists(self.truth.users["user_id"], self.items, hits, np.bincount(rows, minlength=len(self.items)), counts)


def _hits(items: npt.NDArray[np.int32], users: npt.NDArray[np.int64], targets: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """bool[U, C]: is the item a target of its row's user? Pairs are looked up among the sorted pairs of a block of users."""
    width = int(max(items.max(initial=0), targets.max(initial=0))) + 1
    keys = np.sort(users * width + targets)
    hits = np.zeros(items.shape, np.bool_)
    for start in range(0, len(items), _BLOCK):
        block = items[start : start + _BLOCK]
        low, high = np.searchsorted(keys, [start * width, (start + len(block)) * width])
        wanted = (np.arange(start, start + len(block)) * width)[:, None] + block
        place = np.minimum(np.searchsorted(keys[low:high], wanted), high - low - 1)
        hits[start : start + _BLOCK] = (keys[low:high][place] == wanted) & (block >= 0)
    return hits


def _require_same_type(found: pl.Series, expected: pl.Series, where: object) -> None:
    if found.dtype != expected.dtype:
        raise DataContractError(
            f"column '{found.name}' is {found.dtype}",
            where=where,
            expected=f"{expected.dtype}, as in the truth",
            remedy="write both with one type of id",
        )
