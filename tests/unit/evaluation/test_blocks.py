"""Files are read a block of users at a time: each row once where they are sorted, the same values where they are not."""

import itertools

import numpy as np
import polars as pl
import pytest

from retrieval.core.errors import DataContractError
from retrieval.evaluation import tables
from retrieval.evaluation.evaluator import evaluate
from retrieval.evaluation.settings import EvaluationSettings
from retrieval.evaluation.tables import Between, FrameWriter, batches, read_table
from retrieval.evaluation.truth import read_truth, sampled_truth, truth_blocks

USERS = 60
NAMES = {"numbers": lambda n: 10**12 + n, "texts": lambda n: f"ü{n:03d}"}


@pytest.fixture(params=NAMES)
def folder(request, tmp_path):
    """Lists in two part files of many row groups, a truth with two splits."""
    rng, name = np.random.default_rng(0), NAMES[request.param]
    rows = [(name(u), int(item), place) for u in range(USERS) for place, item in enumerate(rng.permutation(40)[:5], 1)]
    lists = pl.DataFrame(rows, ["user_id", "item_id", "rank"], orient="row")
    for part in range(2):
        lists[part * 150 : part * 150 + 150].write_parquet(tmp_path / f"part-{part}.parquet", row_group_size=20)
    pairs = [(name(u), int(item), split) for u in range(USERS) for split in ("test", "valid") for item in rng.integers(0, 40, 3)]
    truth = pl.DataFrame(pairs, ["user_id", "item_id", "split"], orient="row")
    truth.write_parquet(tmp_path / "truth.parquet", row_group_size=30)
    return tmp_path


def values(folder, block_users, split="test"):
    settings = EvaluationSettings(cutoffs=(2, 5), primary="recall@5", resamples=10, block_users=block_users)
    found = evaluate([folder], folder / "truth.parquet", None, settings, split)
    return found.per_user, found.summary.counts


@pytest.fixture(autouse=True)
def lists_only(folder):
    """A folder of candidates is its part files; the truth lies beside them."""
    assert [path.name for path in tables.parquet_files([folder])] == ["part-0.parquet", "part-1.parquet"]


@pytest.mark.parametrize("block_users", [1, 7, 59])
@pytest.mark.parametrize("split", ["test", "valid"])
def test_values_are_those_of_one_block(folder, block_users, split):
    whole, counts = values(folder, USERS, split)
    parts, same = values(folder, block_users, split)
    assert parts.equals(whole)
    assert counts == same
    assert counts["users"] == USERS


def test_files_in_any_order_give_the_same(folder):
    whole, _ = values(folder, USERS)
    for number in range(2):
        path = folder / f"part-{number}.parquet"
        pl.read_parquet(path).sample(fraction=1, shuffle=True, seed=1).write_parquet(path, row_group_size=20)
    assert values(folder, 7)[0].equals(whole)


def test_sorted_files_are_read_about_once(folder, monkeypatch):
    read, frame = [], tables._frame
    monkeypatch.setattr(tables, "_frame", lambda batch: read.append(batch.num_rows) or frame(batch))
    values(folder, 6)
    # 300 rows of lists, 360 of truth for the users' ids and again for the pairs; blocks share a row group at their ends.
    assert 300 + 360 + 360 <= sum(read) <= 2 * (300 + 360 + 360)


def test_blocks_leave_no_gap(folder):
    found = list(truth_blocks(folder / "truth.parquet", "test", 7))
    assert (found[0][0].low, found[-1][0].high, len(found)) == (None, None, 9)
    assert all(one[0].high == other[0].low for one, other in itertools.pairwise(found))
    together = pl.concat(truth.pairs for _, truth in found)
    assert together.equals(read_truth(folder / "truth.parquet", "test").pairs)
    in_memory = list(truth_blocks(read_truth(folder / "truth.parquet", "test"), None, 7))
    assert [truth.pairs.equals(other.pairs) for (_, truth), (_, other) in zip(found, in_memory, strict=True)] == [True] * 9


def test_a_sample_of_the_truth_has_all_targets_of_its_users(folder):
    whole, few = read_truth(folder / "truth.parquet", "test"), sampled_truth(folder / "truth.parquet", "test", 10, 3)
    assert len(few.users) == 10
    assert few.pairs.equals(whole.pairs.join(few.users, on="user_id", how="semi", maintain_order="left"))
    assert sampled_truth(folder / "truth.parquet", "test", 10, 3).users.equals(few.users)
    assert sampled_truth(folder / "truth.parquet", "test", USERS, 3).pairs.equals(whole.pairs)


def test_ids_of_another_type_are_read_and_found_out_later():
    assert Between("a", "b").may_hold(1, 2)
    assert not Between(5, 9).may_hold(9, 20)
    assert Between(5, 9).may_hold(1, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (pl.col("user_id").cast(pl.String) + "x", "'user_id' is String|'user_id' is Int64"),
        (pl.when(pl.col("rank") == 3).then(None).otherwise(pl.col("user_id")), "null ids"),
        (pl.lit(1.5).alias("user_id"), "is Float64"),
    ],
)
def test_faulty_ids_are_found_in_blocks_as_in_one(folder, change, message):
    for number in range(2):
        path = folder / f"part-{number}.parquet"
        frame = pl.read_parquet(path)
        if "Float64" not in message and frame["user_id"].dtype == pl.String and "null" not in message:
            change = pl.col("rank").cast(pl.Int64).alias("user_id")
        frame.with_columns(change.alias("user_id")).write_parquet(path)
    for block_users in (7, USERS):
        with pytest.raises(DataContractError, match=message):
            values(folder, block_users)


def test_tables_are_written_one_after_the_other(tmp_path):
    frames = [
        pl.DataFrame({"user_id": [n], "value": [None if n == 1 else n / 2]}, {"user_id": pl.Int64, "value": pl.Float64}) for n in range(3)
    ]
    with FrameWriter(tmp_path / "whole.parquet") as writer:
        for frame in frames:
            writer.write(frame)
    assert read_table([tmp_path / "whole.parquet"], None).equals(pl.concat(frames))
    assert sum(len(batch) for batch in batches([tmp_path / "whole.parquet"], ("user_id",), between=Between(1, None))) == 2


def test_tables_of_other_things_than_users_are_read_whole(tmp_path):
    items = pl.DataFrame({"item_id": [1, 2], "events": [3, 4]})
    items.write_parquet(tmp_path / "items.parquet")
    assert read_table([tmp_path / "items.parquet"], None).equals(items)
