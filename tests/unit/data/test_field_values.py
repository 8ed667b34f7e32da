"""What cells say: the same whatever type a writer gave the column, and whichever table it stands in."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pytest

from retrieval.core.artifacts import Artifact
from retrieval.core.errors import DataContractError
from retrieval.data.dataset import Dataset

Log = Callable[..., pl.DataFrame]
IDS = [10, 20, 30, 40]
NAN = float("nan")


def items_of(bench: Any, log: Log, fields: dict[str, Any], *tables: dict[str, Any], suffix: str = "parquet") -> Artifact:
    """A dataset whose items lie in several files."""
    for number, table in enumerate(tables):
        bench.write(pl.DataFrame(table), f"items/{number}.{suffix}")
    return bench(log(), items={"path": str(bench.folder / "items"), "fields": fields})  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["categorical", "multi"])
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("second", [[1.0, None], [1.0, NAN]])
def test_a_null_among_integers_changes_no_name(bench: Any, log: Log, kind: str, suffix: str, second: list[float]) -> None:
    files = {"item_id": IDS[:2], "brand": [1, 2]}, {"item_id": IDS[2:], "brand": second}
    found = Dataset.open(items_of(bench, log, {"brand": kind}, *files, suffix=suffix)).fields.items["brand"]
    assert (found.coding.names, found.codes.tolist()) == (("1", "2"), [1, 2, 1, 0])


def test_lists_of_floats_are_the_names_of_integers(bench: Any, log: Log) -> None:
    files = {"item_id": IDS[:2], "tags": [[1, 2], [2]]}, {"item_id": IDS[2:], "tags": [[1.0, 2.5], [NAN, None]]}
    found = Dataset.open(items_of(bench, log, {"tags": "multi"}, *files)).fields.items["tags"]
    assert (found.coding.names, found.codes.tolist()) == (("1", "2", "2.5"), [1, 2, 2, 1, 3, 0])


def test_numbers_are_named_alike_whatever_their_type(bench: Any, log: Log) -> None:
    kinds = pl.Series([Decimal("1.00"), Decimal("2.00")]), pl.Series([-0.0, 2.5], dtype=pl.Float32)
    files = [{"item_id": IDS[2 * n : 2 * n + 2], "brand": each} for n, each in enumerate(kinds)]
    assert Dataset.open(items_of(bench, log, {"brand": "categorical"}, *files)).fields.items["brand"].coding.names == ("0", "1", "2", "2.5")


def test_text_is_no_number_and_keeps_its_spelling(bench: Any, log: Log) -> None:
    table = {"item_id": IDS, "version": ["1.0", " 1.0", "1", "007"]}
    assert Dataset.open(items_of(bench, log, {"version": "categorical"}, table)).fields.items["version"].coding.names == ("007", "1", "1.0")


def test_names_of_users_and_events_are_those_of_integers(bench: Any, log: Log) -> None:
    users = bench.write({"user_id": [1, 2, 3], "job": [4.0, NAN, 5.0]}, "users.parquet")
    source = {"fields": {"device": "categorical"}}
    fields = Dataset.open(
        bench(log(device=[7.0, NAN, None, 7.0] * 3), users={"path": users, "fields": {"job": "categorical"}}, source=source)
    ).fields
    assert (fields.users["job"].coding.names, fields.users["job"].codes.tolist()) == (("4", "5"), [1, 0, 2])
    assert (fields.events["device"].coding.names, fields.events["device"].codes.tolist()) == (("7",), [1, 0, 0, 1] * 3)


def test_blanks_around_names_make_no_other_name(bench: Any, log: Log) -> None:
    table = {"item_id": IDS, "brand": ["a", " a", "a ", "b"]}
    items = {"path": bench.write(table, "items.parquet"), "fields": {"brand": "categorical"}}
    source = {"fields": {"device": "categorical"}}
    fields = Dataset.open(bench(log(device=["tv", "tv ", " tv", "tv"] * 3), items=items, source=source)).fields
    assert (fields.items["brand"].coding.names, fields.items["brand"].codes.tolist()) == (("a", "b"), [1, 1, 1, 2])
    assert (fields.events["device"].coding.names, fields.events["device"].codes.tolist()) == (("tv",), [1] * 12)


def test_a_pattern_reads_the_integer_that_a_float_stands_for(bench: Any, log: Log) -> None:
    table = {"item_id": IDS, "day": [20_200_101.0, 20_210_101.0, NAN, None]}
    field = {"kind": "numeric", "column": "day", "pattern": r"^(\d{4})\d{4}$", "edges": [2021]}
    assert Dataset.open(items_of(bench, log, {"year": field}, table)).fields.items["year"].codes.tolist() == [1, 2, 0, 0]


@pytest.mark.parametrize("cells", [[1.5, NAN, None, 3.0], ["1.5", "", " ", "3"], ["1.5", "nan", None, " 3 "]])
@pytest.mark.parametrize("name", ["log.parquet", "log.csv"])
def test_nan_and_blank_are_missing_and_no_fault(bench: Any, log: Log, cells: list[Any], name: str) -> None:
    field = {"x": {"kind": "numeric", "edges": [2]}}
    items = bench.write({"item_id": IDS, "x": cells}, f"items-{name}")
    found = bench(bench.write(log(x=cells * 3), name), items={"path": items, "fields": field}, source={"fields": field})
    fields = Dataset.open(found).fields
    assert fields.items["x"].codes.tolist() == [1, 0, 0, 2]
    assert fields.events["x"].codes.tolist() == [1, 0, 0, 2] * 3, "every event is kept"
    assert found.summary["quarantine"] == {}


def test_nan_and_blank_are_missing_times_vectors_and_lengths(bench: Any, log: Log) -> None:
    table = {
        "item_id": IDS,
        "made": [1.4e9, NAN, None, 1.5e9],
        "day": ["2020-01-01", "", " ", None],
        "vector": [[1.0], [NAN], [], None],
        "title": ["a b", " ", "", None],
    }
    fields = {"made": "time", "day": "time", "vector": {"kind": "vector", "dimension": 1}, "title": "text-length"}
    found = items_of(bench, log, fields, table)
    values = Dataset.open(found).catalog.frame
    assert values["field_made"].to_list() == [1_400_000_000, None, None, 1_500_000_000]
    assert values["field_day"].to_list() == [1_577_836_800, None, None, None]
    assert values["field_vector"].to_list() == [[1.0], None, None, None]
    assert values["field_title"].to_list() == [2.0, None, None, None]
    assert found.summary["quarantine"] == {}


@pytest.mark.parametrize("cell", [np.inf, "inf", "three", 1e300])
def test_what_is_no_finite_number_is_still_a_fault(bench: Any, log: Log, cell: Any) -> None:
    cells = [cell] + [str(1) if isinstance(cell, str) else 1.0] * 11
    found = bench(log(x=cells), source={"fields": {"x": {"kind": "numeric", "edges": [0]}}}, contract={"max_bad_share": 0.1})
    assert found.summary["quarantine"] == {"interactions": {"bad_field_x": 1}}


def test_a_number_beyond_float32_is_a_fault_of_items_too(bench: Any, log: Log) -> None:
    items = {"path": bench.write({"item_id": IDS, "x": [1e300, 1.0, -2.0, -1e300]}, "items.parquet"), "fields": {"x": "numeric"}}
    found = bench(log(), items=items, contract={"max_bad_share": 0.5})
    assert found.summary["quarantine"] == {"items": {"unreadable_x": 2}}
    assert Dataset.open(found).catalog.frame["field_x"].to_list() == [None, 1.0, -2.0, None]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("numeric", pl.Series([pl.Series([1.0])] * 12)),
        ("numeric", pl.datetime_range(pl.datetime(2020, 1, 1), pl.datetime(2020, 1, 12), eager=True)),
        ("numeric", pl.Series([1] * 12).cast(pl.Duration("ms"))),
        ("categorical", pl.Series([["a"]] * 12)),
        ("categorical", pl.Series([{"a": 1}] * 12)),
    ],
)
def test_an_event_field_of_the_wrong_type_is_refused(bench: Any, log: Log, kind: str, values: pl.Series) -> None:
    field = {"kind": kind} | ({"edges": [0]} if kind == "numeric" else {})
    with pytest.raises(DataContractError, match=r"column 'x' has the wrong type") as caught:
        bench(log(x=values), source={"fields": {"x": field}})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("setting", ["kind", "weight"])
def test_kinds_and_weights_are_no_lists(bench: Any, log: Log, setting: str) -> None:
    with pytest.raises(DataContractError, match=r"column 'x' has the wrong type \(list\)"):
        bench(log(x=[[1]] * 12), source={setting: "x"})


def test_a_later_file_of_the_wrong_type_stops_before_anything_is_read(bench: Any, log: Log) -> None:
    bench.write(log(x=["bad"] * 12), "log/0.parquet")
    bench.write(log(x=[[1.0]] * 12), "log/1.parquet")
    with pytest.raises(DataContractError, match=r"1\.parquet.*wrong type \(list\)"):
        bench(str(bench.folder / "log"), source={"fields": {"x": {"kind": "numeric", "edges": [0]}}})


def test_a_file_without_any_value_may_lie_among_others(bench: Any, log: Log) -> None:
    files = {"item_id": IDS[:2], "x": [1.0, 2.0], "v": [[1.0], [2.0]]}, {"item_id": IDS[2:], "x": [None, None], "v": [None, None]}
    found = Dataset.open(items_of(bench, log, {"x": "numeric", "v": {"kind": "vector", "dimension": 1}}, *files))
    assert found.catalog.frame["field_x"].to_list() == [1.0, 2.0, None, None]
    assert found.catalog.frame["field_v"].to_list() == [[1.0], [2.0], None, None]
