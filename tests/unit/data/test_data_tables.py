import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from retrieval.core.artifacts import Artifact
from retrieval.core.errors import DataContractError, IntegrityError, UsageError
from retrieval.data.catalog import Catalog, ids_fingerprint
from retrieval.data.dataset import Dataset
from retrieval.data.sequences import SequenceDataset

Log = Callable[..., pl.DataFrame]
LENIENT = {"contract": {"max_bad_share": 1.0}}


def catalog(
    bench: Any, log: Log, table: pl.DataFrame | dict[str, Any], name: str = "items.parquet", **items: Any
) -> tuple[Artifact, Catalog]:
    path = bench.write(table, name)
    artifact = bench(log(), items={"path": path} | items, contract={"max_bad_share": 1.0, "unknown_items": "keep"})
    return artifact, Dataset.open(artifact).catalog


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["Drama|War", "War", "", None], [["Drama", "War"], ["War"], [], []]),
        ([" Drama | |Drama", "a,b", "|", "War"], [["Drama"], ["a,b"], [], ["War"]]),
        ([["Drama", "War", "Drama"], [None, "War"], [], None], [["Drama", "War"], ["War"], [], []]),
        ([7, 7, None, 12], [["7"], ["7"], [], ["12"]]),
        ([[7, 8], [7], None, []], [["7", "8"], ["7"], [], []]),
    ],
)
def test_categories_of_every_form(bench: Any, log: Log, values: list[Any], expected: list[list[str]]) -> None:
    _, found = catalog(bench, log, {"item_id": [10, 20, 30, 40], "genres": values}, categories="genres")
    assert found.categories == expected


def test_primary_categories_are_codes_of_the_sorted_names(bench: Any, log: Log) -> None:
    table = {"item_id": [40, 30, 20, 10], "title": ["d", None, "b", 'a "q", é'], "genres": ["War|Art", None, "Art", "Zen|War"]}
    artifact, found = catalog(bench, log, table, categories="genres", title="title")
    assert found.item_ids.to_list() == [10, 20, 30, 40]
    assert found.titles.to_list() == ['a "q", é', "b", None, "d"]
    assert found.category_names == ["Art", "War", "Zen"]
    assert found.primary_category.tolist() == [2, 0, -1, 1]
    assert found.primary_category.dtype == np.int32
    offsets, codes = found.category_codes
    assert (offsets.tolist(), offsets.dtype) == ([0, 2, 3, 3, 5], np.int64)
    assert (codes.tolist(), codes.dtype) == ([2, 1, 0, 1, 0], np.int32)
    assert artifact.summary["categories"] == 3
    assert artifact.summary["items_without_category"] == 1


@pytest.mark.parametrize("name", ["items.parquet", "items.csv"])
def test_typed_fields_and_what_cannot_be_read(bench: Any, log: Log, name: str) -> None:
    table = pl.DataFrame(
        {
            "item_id": [10, 20, 30, 40],
            "brand": ["x", None, "y", "x"],
            "tags": ["a|b", "b", None, ""],
            "price": ["1.5", "free", None, "3"],
            "released": ["2020-01-01", "1950-05-05T12:00:00Z", "soon", None],
        }
    )
    fields = {"brand": "categorical", "tags": "multi", "price": "numeric", "released": "time"}
    artifact, found = catalog(bench, log, table, name, fields=fields)
    assert found.frame["field_brand"].to_list() == ["x", None, "y", "x"]
    assert found.frame["field_tags"].to_list() == [["a", "b"], ["b"], [], []]
    assert found.frame["field_price"].to_list() == [1.5, None, None, 3.0]
    assert found.frame["field_released"].to_list() == [1_577_836_800, -620_395_200, None, None]
    listed = pl.read_parquet(artifact.file("quarantine.parquet"))
    assert listed.select("source", "row", "rule").rows() == [("items", 1, "unreadable_price"), ("items", 2, "unreadable_released")]
    assert json.loads(listed["values"][0])["price"] == "free"


def test_items_with_bad_or_repeated_ids(bench: Any, log: Log) -> None:
    artifact, found = catalog(bench, log, {"item_id": [10, None, 20, 10], "title": ["first", "none", "b", "second"]}, title="title")
    assert artifact.summary["quarantine"]["items"] == {"null_item": 1, "repeated_item": 1}
    assert found.titles.to_list() == ["first", "b", None, None]


def test_too_many_bad_items_stop_the_run(bench: Any, log: Log) -> None:
    path = bench.write({"item_id": [10, 10, 20, 30, 40]}, "items.parquet")
    with pytest.raises(DataContractError, match=r"1 of 5 rows break the contract .repeated_item 1"):
        bench(log(), items={"path": path})


@pytest.mark.parametrize(
    ("kind", "values"), [("categorical", [[1]] * 4), ("numeric", [[1]] * 4), ("time", [[1]] * 4), ("numeric", [pl.date(2020, 1, 1)] * 4)]
)
def test_a_field_of_the_wrong_type_is_refused(bench: Any, log: Log, kind: str, values: list[Any]) -> None:
    table = pl.DataFrame({"item_id": [10, 20, 30, 40]})
    column = pl.Series("f", values) if isinstance(values[0], list) else values[0].alias("f")
    with pytest.raises(DataContractError, match=r"column 'f' has the wrong type"):
        catalog(bench, log, table.with_columns(column), fields={"f": kind})


def test_a_field_that_does_not_exist_is_a_usage_error(bench: Any, log: Log) -> None:
    with pytest.raises(UsageError, match=r"no column 'brnd' .data.items.fields.brnd.; did you mean 'brand'"):
        catalog(bench, log, {"item_id": [10], "brand": ["x"]}, fields={"brnd": "categorical"})


def test_users_of_the_log_get_their_fields(bench: Any, log: Log) -> None:
    path = bench.write({"uid": [3, 9, 1], "age": [30, 90, 10]}, "users.csv")
    users = Dataset.open(bench(log(), users={"path": path, "user": "uid", "fields": {"age": "numeric"}})).users
    assert users.rows() == [(1, 4, 10.0), (2, 4, None), (3, 4, 30.0)]


def test_a_text_catalog_keeps_ids_of_any_spelling(bench: Any, log: Log) -> None:
    names = ["a,b", 'say "hi"', "é\u0301", "007"]
    items = bench.write({"item_id": names}, "items.csv")
    artifact = bench(bench.write(log(item_id=names * 3), "log.csv"), items={"path": items})
    assert sorted(Dataset.open(artifact).catalog.item_ids.to_list()) == sorted(names)
    assert set(pl.read_parquet(artifact.file("truth.parquet"))["item_id"]) <= set(names)


def test_rows_of_ids() -> None:
    found = Catalog(pl.DataFrame({"item_id": ["a", "b", "c"]}))
    assert found.rows_of(pl.Series(["c", "x", "a", "c"])).tolist() == [2, -1, 0, 2]
    numbers = Catalog(pl.DataFrame({"item_id": [5, 7]}))
    assert numbers.rows_of(pl.Series([7, 5, 6], dtype=pl.UInt8)).tolist() == [1, 0, -1]


def test_fingerprints_tell_order_type_and_boundaries_apart() -> None:
    ids = [pl.Series([1, 2]), pl.Series([2, 1]), pl.Series(["1", "2"]), pl.Series(["12", ""]), pl.Series(["", "12"]), pl.Series([1, 2, 3])]
    assert len({ids_fingerprint(series) for series in ids}) == len(ids)
    assert ids_fingerprint(pl.Series([1, 2])) == ids_fingerprint(pl.Series([1, 2]))


@pytest.mark.parametrize("name", ["items.npy", "offsets.npy", "items.parquet", "split.parquet"])
@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_a_damaged_dataset_is_refused(bench: Any, log: Log, name: str, damage: str) -> None:
    artifact = bench(log())
    path = artifact.path / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content if damage == "flip" else content[:-1])
    with pytest.raises(IntegrityError, match=r"is damaged"):
        Dataset.open(artifact)


def test_arrays_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"3, 2 entries"):
        SequenceDataset(np.array([0, 3]), np.zeros(3, dtype=np.int32), np.zeros(2, dtype=np.int64))
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(IntegrityError, match=r"is no array"):
        SequenceDataset.load(*[tmp_path / "x.npy"] * 3)
