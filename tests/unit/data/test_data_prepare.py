import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from retrieval.core.artifacts import Artifact
from retrieval.core.errors import DataContractError, RetrievalError, UsageError
from retrieval.data.dataset import Dataset

Bench, Log = Callable[..., Artifact], Callable[..., pl.DataFrame]
LENIENT = {"contract": {"max_bad_share": 1.0}}
DAY = 86_400
START = 1_577_836_800


def quarantine(artifact: Artifact) -> pl.DataFrame:
    return pl.read_parquet(artifact.file("quarantine.parquet"))


def histories(artifact: Artifact) -> dict[Any, list[Any]]:
    """Every user's items in order, in the log's own ids."""
    dataset = Dataset.open(artifact)
    rows = range(dataset.sequences.n_users)
    return {dataset.users["user_id"][row]: dataset.catalog.item_ids.gather(dataset.sequences.history(row)).to_list() for row in rows}


def test_a_plain_log_becomes_sequences(bench: Bench, log: Log) -> None:
    artifact = bench(log().reverse())
    dataset = Dataset.open(artifact)
    assert histories(artifact) == {1: [10, 20, 30, 40], 2: [20, 30, 40, 10], 3: [30, 40, 10, 20]}
    assert dataset.sequences.offsets.tolist() == [0, 4, 8, 12]
    assert dataset.sequences.offsets.dtype == dataset.sequences.times.dtype == np.int64
    assert dataset.sequences.items.dtype == np.int32
    assert dataset.sequences.times.tolist() == [START + DAY * day for day in range(12)]
    assert isinstance(dataset.sequences.items, np.memmap)
    assert dataset.users.schema == {"user_id": pl.Int64, "events": pl.Int64}
    assert dataset.catalog.events.tolist() == [1, 2, 2, 1]
    truth = pl.read_parquet(artifact.file("truth.parquet"))
    assert truth.rows() == [(1, 30, "valid"), (2, 40, "valid"), (3, 10, "valid"), (1, 40, "test"), (2, 10, "test"), (3, 20, "test")]
    assert artifact.summary["users"] == 3
    assert artifact.summary["quarantine"] == {}


def test_csv_and_parquet_give_the_same_dataset(bench: Any, log: Log) -> None:
    ids = log().with_columns(user_id=pl.Series(['a,"b"', "é x", "c"]).gather([0] * 4 + [1] * 4 + [2] * 4))
    one, other = bench(ids), bench(bench.write(ids, "log.csv"))
    for name in ("offsets.npy", "items.npy", "times.npy"):
        assert one.file(name).read_bytes() == other.file(name).read_bytes()
    assert Dataset.open(one).users.equals(Dataset.open(other).users)
    assert sorted(histories(one)) == ['a,"b"', "c", "é x"]


def test_a_partitioned_folder_reads_its_keys(bench: Any, log: Log) -> None:
    for user in (1, 2, 3):
        bench.write(log().filter(pl.col("user_id") == user).drop("user_id"), f"log/user_id={user}/part.parquet")
    assert histories(bench(str(bench.folder / "log"))) == histories(bench(log()))


@pytest.mark.parametrize(
    ("times", "unit"),
    [
        (pl.col("timestamp") * 1000, "milliseconds"),
        (pl.col("timestamp") + 0.25, "seconds"),
        (pl.from_epoch("timestamp"), "datetime"),
        (pl.from_epoch("timestamp").dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo"), "datetime"),
        (pl.from_epoch("timestamp").dt.date(), "datetime"),
        (pl.from_epoch("timestamp").dt.to_string("%Y-%m-%dT%H:%M:%SZ"), "datetime"),
        (pl.from_epoch("timestamp").dt.to_string("%Y-%m-%d %H:%M"), "datetime"),
        (pl.col("timestamp").cast(pl.String), "seconds"),
    ],
)
@pytest.mark.parametrize("name", ["log.parquet", "log.csv"])
def test_every_form_of_time_is_recognised(bench: Any, log: Log, times: pl.Expr, unit: str, name: str) -> None:
    artifact = bench(bench.write(log().with_columns(timestamp=times), name))
    assert artifact.summary["time"]["read_as"] == unit
    assert Dataset.open(artifact).sequences.times.tolist() == [START + DAY * day for day in range(12)]


def test_small_numbers_are_an_order(bench: Bench, log: Log) -> None:
    artifact = bench(log(timestamp=list(range(12))[::-1]))
    assert artifact.summary["time"] == {"unit": "order", "first": 0, "last": 11, "read_as": "order"}
    assert histories(artifact)[1] == [40, 30, 20, 10]


def test_ties_follow_the_order_column_then_the_row(bench: Bench, log: Log) -> None:
    tied = log(timestamp=[START] * 12, step=[3, 2, 1, 1] * 3)
    assert histories(bench(tied))[1] == [10, 20, 30, 40]
    assert histories(bench(tied, source={"order": "step"}))[1] == [30, 40, 20, 10]
    broken = tied.with_columns(step=pl.col("step") / -2)
    assert histories(bench(broken, source={"order": "step"}))[1] == [10, 20, 30, 40]


BAD_CELLS = [
    ("user_id", None, "null_user"),
    ("item_id", None, "null_item"),
    ("timestamp", None, "null_time"),
    ("timestamp", float("nan"), "nan_time"),
    ("timestamp", float("inf"), "infinite_time"),
    ("timestamp", -float("inf"), "infinite_time"),
    ("timestamp", -5.0, "negative_time"),
    ("timestamp", START * 1000, "late_time"),
    ("weight", None, "bad_weight"),
    ("weight", float("nan"), "bad_weight"),
    ("weight", -1.0, "bad_weight"),
    ("weight", 1e300, "bad_weight"),
    ("kind", None, "bad_kind"),
    ("kind", " ", "bad_kind"),
]


@pytest.mark.parametrize(("column", "value", "rule"), BAD_CELLS)
@pytest.mark.parametrize("name", ["log.parquet", "log.csv"])
def test_a_bad_cell_sends_its_row_to_quarantine(bench: Any, log: Log, column: str, value: Any, rule: str, name: str) -> None:
    frame = log(weight=[1.0] * 12, kind=["view"] * 12)
    dtype = pl.Float64 if isinstance(value, float) else frame.schema[column]
    cells = frame[column].cast(dtype).to_list()
    cells[5] = value
    path = bench.write(frame.with_columns(pl.Series(column, cells, dtype=dtype)), name)
    artifact = bench(path, source={"weight": "weight", "kind": "kind"}, **LENIENT)
    [row] = quarantine(artifact).rows(named=True)
    assert (row["source"], row["row"], row["rule"]) == ("interactions", 5, rule)
    assert set(json.loads(row["values"])) == {"user_id", "item_id", "timestamp", "weight", "kind"}
    assert artifact.summary["quarantine"] == {"interactions": {rule: 1}}
    assert Dataset.open(artifact).sequences.n_events == 11


@pytest.mark.parametrize(("value", "rule"), [("", "empty_user"), ("  ", "empty_user"), (None, "null_user")])
def test_text_ids_must_not_be_blank(bench: Bench, log: Log, value: str | None, rule: str) -> None:
    artifact = bench(log(user_id=["a"] * 6 + [value] + ["b"] * 5), **LENIENT)
    assert artifact.summary["quarantine"] == {"interactions": {rule: 1}}


def test_wrong_types_in_a_csv_are_quarantined(bench: Any, log: Log) -> None:
    many = pl.concat([log(timestamp=[START + DAY * (12 * round_ + day) for day in range(12)]) for round_ in range(20)])
    text = many.cast(pl.String).with_columns(
        user_id=pl.when(pl.row_index() == 7).then(pl.lit("oops")).otherwise("user_id"),
        item_id=pl.when(pl.row_index() == 8).then(pl.lit("9223372036854775808")).otherwise("item_id"),
        timestamp=pl.when(pl.row_index() == 9).then(pl.lit("yesterday")).otherwise("timestamp"),
    )
    artifact = bench(bench.write(text, "log.csv"), contract={"max_bad_share": 0.02})
    rules = dict(quarantine(artifact).select("row", "rule").rows())
    assert rules == {7: "wrong_type_user", 8: "out_of_range_item", 9: "unreadable_time"}
    assert Dataset.open(artifact).users["user_id"].to_list() == [1, 2, 3]


def test_too_many_bad_rows_stop_the_run_and_can_be_found(bench: Any, log: Log) -> None:
    with pytest.raises(DataContractError, match=r"2 of 12 rows break the contract .null_user 2.") as caught:
        bench(log(user_id=[None, None, *[1] * 10]))
    assert caught.value.exit_code == 3
    assert str(bench.rescue) in str(caught.value)
    assert pl.read_parquet(bench.rescue)["rule"].to_list() == ["null_user", "null_user"]
    assert not list((bench.folder / "workspace").glob("dataset/*"))


def test_milliseconds_declared_as_seconds_are_refused_with_advice(bench: Bench, log: Log) -> None:
    frame = log().with_columns(pl.col("timestamp") * 1000)
    with pytest.raises(DataContractError, match=r"late_time 12.*set time_unit"):
        bench(frame, source={"time_unit": "seconds"})


def test_times_outside_the_declared_range_are_bad(bench: Bench, log: Log) -> None:
    contract = {"max_bad_share": 1, "earliest": "2020-01-02", "latest": "2020-01-11T12:00:00"}
    assert bench(log(), contract=contract).summary["quarantine"] == {"interactions": {"early_time": 1, "late_time": 1}}


@pytest.mark.parametrize("dtype", [pl.Boolean, pl.List(pl.Int64), pl.Date])
def test_a_column_that_cannot_be_an_id_is_refused(bench: Bench, log: Log, dtype: Any) -> None:
    with pytest.raises(DataContractError, match=r"'user_id' has the wrong type"):
        bench(log().with_columns(user_id=pl.lit(None, dtype)))


def test_a_unit_that_contradicts_the_column_is_refused(bench: Bench, log: Log) -> None:
    with pytest.raises(DataContractError, match=r"holds datetimes, but the time unit is 'seconds'"):
        bench(log().with_columns(timestamp=pl.from_epoch("timestamp")), source={"time_unit": "seconds"})
    with pytest.raises(DataContractError, match=r"holds numbers, but the time unit is 'datetime'"):
        bench(log(), source={"time_unit": "datetime"})


def test_ids_of_two_types_are_refused(bench: Any, log: Log) -> None:
    items = bench.write({"item_id": ["10", "20"]}, "items.parquet")
    with pytest.raises(DataContractError, match=r"integers in .* and text in"):
        bench(log(), items={"path": items})


def test_an_unknown_column_suggests_and_lists(bench: Bench, log: Log) -> None:
    with pytest.raises(
        UsageError, match=r"no column 'user_ids' .data.interactions.user.; did you mean 'user_id'.*user_id, item_id, timestamp"
    ):
        bench(log(), source={"user": "user_ids"})


def test_a_later_file_without_a_column_is_drift(bench: Any, log: Log) -> None:
    bench.write(log(), "log/a.parquet")
    bench.write(log().rename({"item_id": "sku"}), "log/b.parquet")
    with pytest.raises(DataContractError, match=r"schema drift: lacks item_id, has sku instead"):
        bench(str(bench.folder / "log"))


def test_integer_widths_may_differ_between_files(bench: Any, log: Log) -> None:
    bench.write(log().with_columns(pl.col("user_id").cast(pl.UInt8)), "log/a.parquet")
    bench.write(log().with_columns(pl.col("user_id") + 10**12, pl.col("timestamp").cast(pl.Float64)), "log/b.parquet")
    assert sorted(histories(bench(str(bench.folder / "log")))) == [1, 2, 3, 10**12 + 1, 10**12 + 2, 10**12 + 3]


@pytest.mark.parametrize("name", ["log.parquet", "log.csv"])
def test_an_empty_log_is_refused(bench: Any, log: Log, name: str) -> None:
    with pytest.raises(DataContractError, match=r"the log is empty"):
        bench(bench.write(log().clear(), name))


def test_a_missing_path_is_a_usage_error(bench: Any) -> None:
    with pytest.raises(UsageError, match=r"no such file or folder.*check data.interactions.path"):
        bench(str(bench.folder / "nowhere"))


def test_a_truncated_log_is_one_line(bench: Any, log: Log) -> None:
    path = Path(bench.write(log()))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataContractError) as caught:
        bench(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("protocol", ["comirec", "leave-last-out"])
def test_one_user_and_users_with_one_event(bench: Bench, log: Log, protocol: str) -> None:
    alone = Dataset.open(bench(log().filter(pl.col("user_id") == 1), split={"protocol": protocol}))
    assert alone.sequences.n_users == 1
    single = Dataset.open(bench(log(user_id=list(range(12))), split={"protocol": protocol}))
    assert single.sequences.lengths.tolist() == [1] * 12
    assert (single.split.train_end + single.split.valid_end + single.split.test_end).min() >= 0


def test_ids_near_the_end_of_the_range(bench: Bench, log: Log) -> None:
    top = 2**63 - 1
    artifact = bench(log(user_id=[top] * 6 + [top - 1] * 6), items={})
    assert sorted(histories(artifact)) == [top - 1, top]
    unsigned = log().with_columns(user_id=pl.Series([1] * 11 + [2**64 - 1], dtype=pl.UInt64))
    assert bench(unsigned, **LENIENT).summary["quarantine"] == {"interactions": {"out_of_range_user": 1}}


def test_exact_duplicates(bench: Bench, log: Log) -> None:
    doubled = pl.concat([log(), log().head(1), log().head(1)])
    with pytest.raises(DataContractError, match=r"duplicate 2"):
        bench(doubled)
    dropped = bench(doubled, contract={"duplicates": "drop"})
    assert quarantine(dropped)["row"].to_list() == [12, 13]
    assert json.loads(quarantine(dropped)["values"][0])["item_id"] == 10
    assert histories(dropped) == histories(bench(log()))
    assert histories(bench(doubled, contract={"duplicates": "keep"}))[1] == [10, 10, 10, 20, 30, 40]


def test_equal_but_for_a_declared_column_is_no_duplicate(bench: Bench, log: Log) -> None:
    doubled = pl.concat([log(kind="view", weight=1.0), log(kind="buy", weight=1.0), log(kind="buy", weight=2.0)])
    assert bench(doubled, source={"kind": "kind", "weight": "weight"}).summary["events"] == 36


def test_the_row_of_a_duplicate_counts_skipped_rows(bench: Bench, log: Log) -> None:
    frame = pl.concat([log(user_id=[None, *[1] * 11]), log(user_id=[None, *[1] * 11]).slice(0, 3)])
    found = quarantine(bench(frame, **LENIENT))
    assert sorted(zip(found["row"], found["rule"], strict=True)) == [
        (0, "null_user"),
        (12, "null_user"),
        (13, "duplicate"),
        (14, "duplicate"),
    ]


def test_unknown_items(bench: Any, log: Log) -> None:
    items = {"path": bench.write({"item_id": [10, 20, 30, 99]}, "items.parquet")}
    found = bench(log(), items=items, **LENIENT)
    assert found.summary["quarantine"] == {"interactions": {"unknown_item": 3}}
    assert quarantine(found)["row"].to_list() == [3, 6, 9]
    assert Dataset.open(found).catalog.item_ids.to_list() == [10, 20, 30]
    kept = bench(log(), items=items, contract={"unknown_items": "keep"})
    assert Dataset.open(kept).catalog.item_ids.to_list() == [10, 20, 30, 40]
    every = bench(log(), items=items, contract={"unknown_items": "keep"}, keep_items_without_events=True)
    assert Dataset.open(every).catalog.item_ids.to_list() == [10, 20, 30, 40, 99]
    assert Dataset.open(every).catalog.events.tolist()[-1] == 0


def test_kinds_are_filtered_and_weighted(bench: Bench, log: Log) -> None:
    frame = log(kind=["view", "buy", "view", "cart"] * 3, weight=[0.5] * 12)
    filters = {"kinds": ["view", "buy"], "kind_weights": {"buy": 4.0}}
    artifact = bench(frame, source={"kind": "kind", "weight": "weight"}, filters=filters)
    sequences = Dataset.open(artifact).sequences
    assert artifact.summary["filtered"] == {"kind": 3, "later": 0, "rare": 0}
    assert artifact.summary["quarantine"] == {}
    assert sequences.weights is not None
    assert sequences.weights.tolist() == [0.5, 2.0, 0.5] * 3
    assert sequences.kinds is not None
    assert [artifact.summary["kinds"][code] for code in sequences.kinds[:3]] == ["view", "buy", "view"]
    with pytest.raises(DataContractError, match=r"no event is left of 12.*data.filters"):
        bench(frame, source={"kind": "kind"}, filters={"kinds": ["share"]})


def test_filters_that_leave_nothing_are_refused(bench: Bench, log: Log) -> None:
    with pytest.raises(DataContractError, match=r"no event is left"):
        bench(log(), filters={"min_user_events": 5})


def test_a_rerun_gives_the_same_bytes(bench: Bench, log: Log) -> None:
    one, other = bench(log(), split={"protocol": "comirec"}), bench(log(), split={"protocol": "comirec"})
    assert {name: record.sha256 for name, record in one.manifest.files.items()} == {
        name: record.sha256 for name, record in other.manifest.files.items()
    }


@pytest.mark.parametrize("damage", ["folder", "directory as parquet"])
def test_odd_paths_are_errors_of_the_project(bench: Any, damage: str) -> None:
    folder = bench.folder / "odd.parquet"
    folder.mkdir()
    (folder / "part.parquet").mkdir() if damage == "directory as parquet" else None
    with pytest.raises(RetrievalError):
        bench(str(folder))
