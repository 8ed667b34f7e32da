"""Lists as parquet: external ids, ranks, and bytes that only the rows decide."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from retrieval.core.errors import ResourceError
from retrieval.recall.pools import Lists
from retrieval.recall.writer import lists_frame, write_frame

SCHEMA = {"user_id": pl.String, "item_id": pl.Int64, "rank": pl.Int32, "score": pl.Float32, "interest": pl.Int32}


def random_lists(users: int, n: int, items: int) -> Lists:
    rng = np.random.default_rng(1)
    lists = Lists.empty(users, n)
    for user in range(users):
        length = int(rng.integers(0, n + 1))
        lists.rows[user, :length] = rng.choice(items, length, replace=False)
        lists.scores[user, :length], lists.interest[user, :length] = rng.standard_normal(length), rng.integers(0, 4, length)
    return lists


def test_rows_come_in_external_ids_with_ranks_from_one() -> None:
    lists = Lists.empty(2, 3)
    lists.rows[0, :2], lists.scores[0, :2], lists.interest[0, :2] = [2, 0], [0.5, 0.25], [1, 0]
    items = pl.Series([2**62 + 1, 5, 2**62 + 3])
    frame = lists_frame(pl.Series(['a "b", ü', "never"]), items, lists)
    assert frame.schema == pl.Schema(SCHEMA)
    assert frame.rows() == [('a "b", ü', 2**62 + 3, 1, 0.5, 1), ('a "b", ü', 2**62 + 1, 2, 0.25, 0)]


def test_no_rows_keep_the_columns(tmp_path: Path) -> None:
    frame = lists_frame(pl.Series(["a"]), pl.Series([1]), Lists.empty(1, 3))
    write_frame(frame, tmp_path / "part.parquet")
    assert pl.read_parquet(tmp_path / "part.parquet").schema == pl.Schema(SCHEMA)
    assert frame.height == 0


def test_bytes_do_not_depend_on_the_batches(tmp_path: Path) -> None:
    users, items, lists = pl.Series([f"user {n}" for n in range(500)]), pl.Series(range(700)), random_lists(500, 20, 700)
    written = []
    for size in (500, 64, 7):
        parts = [slice(start, start + size) for start in range(0, 500, size)]
        frames = [lists_frame(users[part], items, Lists(lists.rows[part], lists.scores[part], lists.interest[part])) for part in parts]
        write_frame(pl.concat(frames), tmp_path / f"{size}.parquet")
        written.append((tmp_path / f"{size}.parquet").read_bytes())
    assert written[0] == written[1] == written[2]
    back = pl.read_parquet(tmp_path / "7.parquet")
    assert back.equals(lists_frame(users, items, lists))


def test_a_folder_that_is_not_there_is_a_resource_error(tmp_path: Path) -> None:
    frame = lists_frame(pl.Series(["a"]), pl.Series([1]), Lists.empty(1, 3))
    with pytest.raises(ResourceError, match="missing"):
        write_frame(frame, tmp_path / "missing" / "part.parquet")
