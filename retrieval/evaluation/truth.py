"""Who is judged, and by which targets: in memory, or a block of users at a time from a file."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from retrieval.core.errors import DataContractError
from retrieval.evaluation.tables import EVERYBODY, Between, as_ids, batches, empty_table, parquet_files, read_table, require_columns


@dataclass(frozen=True)
class GroundTruth:
    """`pairs`: user_id, item_id, each pair once, sorted by both. `users`: user_id and its row (UInt32), sorted by user_id."""

    pairs: pl.DataFrame
    users: pl.DataFrame


def ground_truth(frame: pl.DataFrame, where: object = "truth") -> GroundTruth:
    """Truth from a table with user_id and item_id; equal rows count once. Raises DataContractError when it is empty."""
    require_columns(frame.columns, ("user_id", "item_id"), where)
    if frame.is_empty():
        raise DataContractError("has no rows, so there is nobody to evaluate", where=where)
    ordered = pl.DataFrame([as_ids(frame["user_id"], where), as_ids(frame["item_id"], where)]).sort("user_id", "item_id")
    differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in ("user_id", "item_id"))
    pairs = ordered.filter(differs)
    return GroundTruth(pairs, pairs.select(pl.col("user_id").rle().struct.field("value").alias("user_id")).with_row_index("user"))


def read_truth(path: Path, split: str | None) -> GroundTruth:
    """Read (user_id, item_id) and keep one split, where the file has a `split` column and `split` is not None.

    Raises:
        DataContractError: the file cannot be read, lacks a column, has bad ids, or no row of that split.
    """
    return ground_truth(_read(path, ("user_id", "item_id"), split), where=path)


def sampled_truth(path: Path, split: str | None, most: int, seed: int) -> GroundTruth:
    """The truth of at most so many users, drawn by seed; errors as `read_truth`. Only theirs is in memory."""
    users = _users(path, split)
    if len(users) <= most:
        return read_truth(path, split)
    chosen = pl.DataFrame([users.sample(most, seed=seed).alias("user_id")])
    columns, found = _columns(path, ("user_id", "item_id"), split), list[pl.DataFrame]()
    for batch in batches([path], columns):
        kept = batch.filter(pl.col("split").cast(pl.String) == split) if "split" in columns else batch
        found.append(kept.with_columns(as_ids(kept["user_id"], path)).join(chosen, on="user_id", how="semi"))
    return ground_truth(pl.concat(found), where=path)


def truth_blocks(truth: Path | GroundTruth, split: str | None, size: int) -> Iterator[tuple[Between, GroundTruth]]:
    """Blocks of at most `size` users in order of user_id, with the range of ids that each stands for; the ranges leave no gap.

    Of a file, only the ids of users and one block are in memory. Raises DataContractError as `read_truth`.
    """
    if isinstance(truth, GroundTruth):
        for between in _ranges(truth.users["user_id"], size):
            yield between, truth if between == EVERYBODY else ground_truth(between.keep(truth.pairs))
        return
    ranges = _ranges(_users(truth, split), size)
    for between in ranges:
        yield between, ground_truth(_read(truth, ("user_id", "item_id"), split, between), where=truth)


def _users(path: Path, split: str | None) -> pl.Series:
    """The ids of all users of the split, sorted; a batch of rows at a time."""
    columns, found = _columns(path, ("user_id",), split), list[pl.Series]()
    for batch in batches([path], columns):
        kept = batch if len(columns) == 1 else batch.filter(pl.col("split").cast(pl.String) == split)
        # Rows of a user lie side by side as a rule: few are left to be told apart.
        found.append(as_ids(kept["user_id"], path).rle().struct.field("value"))
    users = pl.concat(found) if found else pl.Series([], dtype=pl.Int64)
    if users.is_empty():
        # Says what is wrong with a file that has no row of the split.
        return ground_truth(_read(path, ("user_id", "item_id"), split), where=path).users["user_id"]
    return users.unique().sort()


def _ranges(users: pl.Series, size: int) -> list[Between]:
    bounds = [None, *(users[place] for place in range(size, len(users), size)), None]
    return [Between(low, high) for low, high in itertools.pairwise(bounds)]


def _columns(path: Path, columns: tuple[str, ...], split: str | None) -> list[str]:
    known = empty_table(parquet_files([path])[0]).columns
    return [*columns, "split"] if split is not None and "split" in known else list(columns)


def _read(path: Path, columns: tuple[str, ...], split: str | None, between: Between = EVERYBODY) -> pl.DataFrame:
    frame = read_table([path], _columns(path, columns, split), between)
    if "split" not in frame.columns:
        return frame
    kept = frame.filter(pl.col("split").cast(pl.String) == split)
    if kept.is_empty() and not frame.is_empty():
        names = ", ".join(sorted(str(name) for name in frame["split"].unique()))
        raise DataContractError(f"has no rows with split '{split}'", where=path, expected=f"one of: {names}")
    return kept
