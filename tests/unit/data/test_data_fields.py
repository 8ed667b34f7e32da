"""Declared fields: read, fitted on training alone, coded, watched for drift; what is wrong with them is said in a line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from retrieval.core.artifacts import Artifact
from retrieval.core.errors import DataContractError, RetrievalError, UsageError
from retrieval.core.settings import parse_settings
from retrieval.data.dataset import Dataset
from retrieval.data.fields.coding import FieldColumn, code_column
from retrieval.data.fields.drift import drift_of
from retrieval.data.fields.recode import recoded
from retrieval.data.fields.settings import CategoricalField, MultiField, NumericField, VectorField
from retrieval.data.settings import DataSettings

Bench, Log = Callable[..., Artifact], Callable[..., pl.DataFrame]
ITEMS = {
    "item_id": [10, 20, 30, 40],
    "title": ["Alien (1979)", "Heat (1995)", "Up", None],
    "genres": ["Horror|SciFi", "Crime", "", None],
    "price": [1.0, 3.0, None, 7.0],
    "made": [1_400_000_000, 1_500_000_000, None, 1_577_836_800],
    "embedding": [[1.0, 0.0], [0.0, 1.0], None, [1.0, 1.0]],
}
FIELDS: dict[str, Any] = {
    "genres": "multi",
    "year": {"kind": "numeric", "column": "title", "pattern": r"\((\d{4})\)", "edges": [1980, 2000]},
    "price": "numeric",
    "made": {"kind": "time", "buckets": 2},
    "words": {"kind": "text-length", "column": "title", "edges": [2]},
    "embedding": {"kind": "vector", "dimension": 2},
}
FREE = {"contract": {"max_bad_share": 1.0}}


@pytest.fixture
def dataset(bench: Any, log: Log) -> Dataset:
    items = bench.write(pl.DataFrame(ITEMS), "items.parquet")
    return Dataset.open(bench(log(), items={"path": items, "fields": FIELDS}, **FREE))


def test_every_kind_becomes_numbers(dataset: Dataset) -> None:
    fields = dataset.fields.items
    assert list(fields) == list(FIELDS)
    assert fields["genres"].coding.names == ("Crime", "Horror", "SciFi")
    assert fields["genres"].offsets.tolist() == [0, 2, 3, 4, 5]
    assert fields["genres"].codes.tolist() == [2, 3, 1, 0, 0], "no name at all is one unknown name"
    assert fields["year"].codes.tolist() == [1, 2, 0, 0]
    assert fields["words"].codes.tolist() == [2, 2, 1, 0]
    assert fields["price"].values[2].tolist() == [0.0, 1.0]
    np.testing.assert_allclose(fields["price"].values[[0, 1, 3], 0], (np.array([1, 3, 7]) - 11 / 3) / np.std([1, 3, 7]), rtol=1e-6)
    assert fields["made"].codes.tolist()[2] == 0
    assert fields["made"].coding.rows == 3
    assert fields["embedding"].values[2].tolist() == [0.0, 0.0]
    known = fields["embedding"].values[[0, 1, 3]]
    np.testing.assert_allclose(known.mean(axis=0), 0.0, atol=1e-6)


def test_vocabulary_and_quantiles_come_from_training_alone() -> None:
    values, events = pl.Series(["a", "a", "b", "new", None]), np.array([2, 1, 1, 0, 4])
    column = code_column("letter", CategoricalField(), values, events)
    assert column.coding.names == ("a", "b")
    assert column.codes.tolist() == [1, 1, 2, 0, 0], "what training has not seen is unknown"
    assert code_column("letter", CategoricalField(min_count=2), values, events).coding.names == ("a",)
    bucketed = code_column("price", NumericField(buckets=2), pl.Series([1.0, 2.0, 3.0, 1000.0]), np.array([1, 1, 1, 0]))
    assert bucketed.coding.edges == (2.0,)
    scaled = code_column("price", NumericField(), pl.Series([1.0, 3.0, 1e9, None]), np.array([1, 1, 0, 1]))
    np.testing.assert_allclose(scaled.values, [[-1, 0], [1, 0], [5, 0], [0, 1]])


def test_hashing_needs_no_vocabulary_and_never_changes() -> None:
    values = pl.Series([f"user agent {number}" for number in range(1000)] + ["", None])
    column = code_column("agent", CategoricalField(hashed=64), values, np.ones(1002, dtype=np.int64))
    assert column.coding.rows == 65
    assert column.codes[-1] == 0
    assert column.codes[:1000].min() >= 1
    assert np.bincount(column.codes[:1000], minlength=65)[1:].max() < 40
    expected = 0xCBF29CE484222325
    for byte in b"user agent 7":
        expected = (expected ^ byte) * 0x100000001B3 % 2**64
    assert column.codes[7] == 1 + (expected ^ expected >> 32) % 64


@pytest.mark.parametrize("hashed", [0, 10])
def test_an_empty_name_is_no_value_wherever_it_stands(bench: Any, log: Log, hashed: int) -> None:
    brand = {"kind": "categorical", "hashed": hashed}
    items = bench.write(pl.DataFrame({"item_id": [10, 20, 30, 40], "brand": ["a", "", " ", None]}), "items.parquet")
    frame = log(device=["tv", "", None, " "] * 3)
    found = bench(frame, items={"path": items, "fields": {"brand": brand}}, source={"fields": {"device": brand}})
    fields = Dataset.open(found).fields
    for column in (fields.items["brand"], fields.events["device"]):
        assert (column.codes > 0).sum() == (column.codes != 0).sum() == len(column.codes) // 4
        assert not {"", " "} & set(column.coding.names)
    assert found.summary["quarantine"] == {}


def test_lists_are_coded_as_a_loop_would() -> None:
    random = np.random.default_rng(0)
    lists = [[f"n{number}" for number in random.integers(0, 9, size=random.integers(0, 4))] for _ in range(50)]
    events = random.integers(0, 3, size=50)
    column = code_column("tags", MultiField(min_count=5), pl.Series(lists, dtype=pl.List(pl.String)), events)
    counts: dict[str, int] = {}
    for names, often in zip(lists, events, strict=True):
        for name in names:
            counts[name] = counts.get(name, 0) + int(often)
    kept = sorted(name for name, often in counts.items() if often >= 5)
    rows = {name: 1 + place for place, name in enumerate(kept)}
    for number, names in enumerate(lists):
        own = column.codes[column.offsets[number] : column.offsets[number + 1]].tolist()
        assert own == ([rows.get(name, 0) for name in names] or [0])


def test_event_fields_are_read_sorted_and_fitted(bench: Bench, log: Log) -> None:
    fields = {
        "device": {"kind": "categorical", "min_count": 2},
        "rating": {"kind": "numeric", "edges": [3]},
        "gap": {"kind": "gap", "edges": [90_000]},
        "age": {"kind": "age", "of": "made", "edges": [0]},
    }
    frame = log(device=["tv", "tv", "web", "app"] * 3, rating=[1, 5, None, 3] * 3).sample(fraction=1.0, shuffle=True, seed=3)
    items = bench.write(pl.DataFrame(ITEMS), "items.parquet")  # type: ignore[attr-defined]
    found = bench(frame, items={"path": items, "fields": {"made": "time"}}, source={"fields": fields}, **FREE)
    events = Dataset.open(found).fields.events
    # Leave-last-out trains on the first two events of each user: "web" and "app" come later.
    assert events["device"].coding.names == ("tv",)
    assert events["device"].codes.tolist() == [1, 1, 0, 0] * 3
    assert events["rating"].codes.tolist() == [1, 2, 0, 2] * 3
    assert events["gap"].codes.tolist() == [0, 1, 1, 1] * 3
    assert events["age"].codes.tolist() == [2, 2, 0, 2, 2, 0, 2, 2, 0, 2, 2, 2]
    assert found.summary["fields"]["events"]["device"]["unknown_later"] == 1.0
    assert found.summary["fields"]["events"]["device"]["unknown_in_training"] == 0.0


def test_events_that_differ_in_a_field_are_no_duplicates(bench: Bench, log: Log) -> None:
    twice = pl.concat([log(device="a"), log(device="b"), log(device="b")])
    assert Dataset.open(bench(twice, source={"fields": {"device": "categorical"}}, **FREE)).sequences.n_events == 24
    assert Dataset.open(bench(twice, **FREE)).sequences.n_events == 12


def test_an_unreadable_rating_is_quarantined(bench: Bench, log: Log) -> None:
    ratings = ["5", "bad", None] + ["1"] * 9
    found = bench(log(rating=ratings), source={"fields": {"rating": {"kind": "numeric", "edges": [3]}}}, **FREE)
    assert found.summary["quarantine"] == {"interactions": {"bad_field_rating": 1}}


def test_a_dataset_without_fields_has_no_file_of_them(bench: Bench, log: Log) -> None:
    assert not [name for name in bench(log()).manifest.files if name.startswith("field")]


def test_drift_is_between_none_and_one() -> None:
    column = code_column("letter", CategoricalField(), pl.Series(["a", "b", None]), np.array([1, 1, 0]))
    same = drift_of(column, np.array([3, 3, 0]), np.array([2, 2, 0]))
    assert (same["distance"], same["unknown_later"]) == (0.0, 0.0)
    other = drift_of(column, np.array([3, 0, 0]), np.array([0, 1, 1]))
    assert (other["distance"], other["unknown_later"]) == (1.0, 0.5)
    assert "distance" not in drift_of(column, np.array([3, 3, 0]), np.zeros(3, dtype=np.int64))
    vectors = code_column("v", VectorField(dimension=2), pl.Series([[0.0, 0.0], [2.0, 2.0]]), np.array([1, 1]))
    assert drift_of(vectors, np.array([1, 1]), np.array([1, 1]))["distance"] == 0.0
    assert drift_of(vectors, np.array([1, 0]), np.array([0, 1]))["distance"] == pytest.approx(2.0)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_a_vector_is_unknown_where_it_is_missing_whatever_its_size(dimension: int) -> None:
    raw = [[0.0] * dimension, [2.0] * dimension, None]
    vectors = code_column("v", VectorField(dimension=dimension), pl.Series(raw, dtype=pl.List(pl.Float32)), np.array([1, 1, 0]))
    found = drift_of(vectors, np.array([1, 1, 2]), np.array([1, 0, 3]))
    assert (found["unknown_in_training"], found["unknown_later"]) == (0.5, 0.75)


@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        ({"colour": "categorical"}, UsageError, r"no column 'colour' \(data.items.fields.colour\)"),
        ({"genres": {"kind": "numeric"}}, DataContractError, "unreadable_genres"),
        ({"embedding": "categorical"}, DataContractError, "column 'embedding' has the wrong type"),
        ({"price": {"kind": "vector", "dimension": 2}}, DataContractError, "column 'price' has the wrong type"),
        ({"embedding": {"kind": "vector", "dimension": 3}}, DataContractError, "unreadable_embedding"),
        ({"empty": {"kind": "categorical"}}, DataContractError, "field 'empty' has no value in the training part"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_in_a_line(
    bench: Any, log: Log, fields: dict[str, Any], error: type[RetrievalError], said: str
) -> None:
    path = bench.write(pl.DataFrame(ITEMS | {"empty": pl.Series([None] * 4, dtype=pl.String)}), "items.parquet")
    with pytest.raises(error, match=said) as caught:
        bench(log(), items={"path": path, "fields": fields}, contract={"max_bad_share": 0.2})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ({"year": "number"}, "items.fields.year"),
        ({"year": {"kind": "numeric", "buckets": 3, "edges": [1.0]}}, "buckets and edges"),
        ({"year": {"kind": "numeric", "edges": [2.0, 1.0]}}, "do not rise"),
        ({"id": "categorical"}, r"items.fields.id: the name stands for the item itself"),
        ({"year": {"kind": "numeric", "pattern": "[0-9]+"}}, "has 0 groups"),
        ({"brand": {"kind": "categorical", "hashed": 20_000_001}}, "no machine trains well"),
        ({"year": {"kind": "categorical", "pattern": "("}}, "no regular expression"),
        ({"year": {"kind": "categorical", "bucket": 3}}, "unknown setting 'items.fields.year.bucket'; did you mean 'buckets'"),
    ],
)
def test_what_is_wrong_with_a_declaration_is_said_in_a_line(items: dict[str, Any], said: str) -> None:
    values = {"name": "x", "interactions": {"path": "log.parquet"}, "items": {"path": "items.parquet", "fields": items}}
    with pytest.raises(UsageError, match=said) as caught:
        parse_settings(DataSettings, values, "recipe")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", [{"kind": "gap"}, {"kind": "age", "of": "made"}, {"kind": "numeric"}])
def test_edges_of_events_rise(field: dict[str, Any]) -> None:
    source = {"path": "log.parquet", "fields": {"x": field | {"edges": [86_400, 60, 3_600]}}}
    values = {"name": "x", "interactions": source, "items": {"path": "items.parquet", "fields": {"made": "time"}}}
    with pytest.raises(UsageError, match=r"edges \[86400.0, 60.0, 3600.0\] do not rise"):
        parse_settings(DataSettings, values, "recipe")


def test_a_user_field_is_not_called_activity() -> None:
    values = {"name": "x", "interactions": {"path": "log.parquet"}, "users": {"path": "u.parquet", "fields": {"activity": "categorical"}}}
    with pytest.raises(UsageError, match=r"users.fields.activity: the name stands for the number of the user's events"):
        parse_settings(DataSettings, values, "recipe")


@pytest.mark.parametrize("edges", [[0.1, 0.2, 0.3], [0.3], [0.6, 0.7, 0.9]])
def test_a_number_on_an_edge_is_not_below_it(bench: Bench, log: Log, edges: list[float]) -> None:
    ratings = [number / 10 for number in range(1, 13)]
    sources = [{"path": "log.parquet", "fields": {"rating": {"kind": "numeric", "edges": each}}} for each in (edges, [5.0])]
    found, other = (Dataset.open(bench(log(rating=ratings), source={"fields": source["fields"]})) for source in sources)
    column = found.fields.events["rating"]
    assert column.codes.tolist() == [1 + sum(edge <= rating for edge in edges) for rating in ratings]
    wanted: Any = {"items": {}, "users": {}, "events": {"rating": column.coding}}
    again = recoded(other, DataSettings.model_validate({"name": "x", "interactions": sources[1]}), wanted)
    assert again.events["rating"].codes.tolist() == column.codes.tolist(), "as another dataset codes it, too"


def test_ages_need_a_time_field_of_the_items() -> None:
    source = {"path": "log.parquet", "fields": {"age": {"kind": "age", "of": "mad"}}}
    values = {"name": "x", "interactions": source, "items": {"path": "items.parquet", "fields": {"made": "time"}}}
    with pytest.raises(UsageError, match=r"'mad' is no time field of the items; did you mean 'made'"):
        parse_settings(DataSettings, values, "recipe")


@pytest.mark.parametrize("made", [[1979, 1995, 2001, None], [20_190_501, 20_190_502, 20_190_503, 20_190_504], [None] * 4])
def test_a_year_is_not_taken_for_epoch_seconds(bench: Any, log: Log, made: list[int | None]) -> None:
    path = bench.write({"item_id": ITEMS["item_id"], "made": pl.Series(made, dtype=pl.Int64)}, "items.parquet")
    with pytest.raises(DataContractError, match=r"'made' does not say its unit.*data.items.fields.born.unit") as caught:
        bench(log(), items={"path": path, "fields": {"born": {"kind": "time", "column": "made"}}})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("unit", "made", "expected"),
    [("seconds", 86_400, 86_400), ("milliseconds", 86_400_000, 86_400), ("order", 7, 7), ("datetime", "1970-01-02", 86_400)],
)
def test_times_of_items_are_read_in_the_unit_that_is_declared(bench: Any, log: Log, unit: str, made: Any, expected: int) -> None:
    path = bench.write({"item_id": ITEMS["item_id"], "made": [made] * 4}, "items.parquet")
    found = Dataset.open(bench(log(), items={"path": path, "fields": {"made": {"kind": "time", "unit": unit}}}))
    assert found.catalog.frame["field_made"].to_list() == [expected] * 4


def test_a_unit_that_contradicts_the_column_is_refused(bench: Any, log: Log) -> None:
    path = bench.write({"item_id": ITEMS["item_id"], "made": [1.5e9] * 4}, "items.parquet")
    with pytest.raises(DataContractError, match=r"set data.items.fields.made.unit to milliseconds or order or seconds"):
        bench(log(), items={"path": path, "fields": {"made": {"kind": "time", "unit": "datetime"}}})


@pytest.mark.parametrize(("ordered", "unit"), [(True, "seconds"), (False, "order"), (False, "seconds"), (True, "order")])
def test_an_age_needs_one_clock(bench: Any, log: Log, ordered: bool, unit: str) -> None:
    frame = log(timestamp=list(range(100, 112))) if ordered else log()
    path = bench.write({"item_id": ITEMS["item_id"], "made": [90, 95, 100, 105]}, "items.parquet")
    items = {"path": path, "fields": {"made": {"kind": "time", "unit": unit}}}
    source = {"fields": {"age": {"kind": "age", "of": "made", "edges": [10]}}}
    if ordered == (unit == "order"):
        assert Dataset.open(bench(frame, items=items, source=source)).fields.events["age"].coding.rows == 3
        return
    with pytest.raises(DataContractError, match=r"'age' is the time from 'made' to the event.*counts steps"):
        bench(frame, items=items, source=source)


def test_a_damaged_array_is_noticed(bench: Any, log: Log, tmp_path: Path) -> None:
    items = bench.write(pl.DataFrame(ITEMS), "items.parquet")
    artifact = bench(log(), items={"path": items, "fields": {"price": "numeric"}}, **FREE)
    path = artifact.path / "field-items-0.values.npy"
    path.write_bytes(path.read_bytes()[:-4] + b"\x00\x00\x00\x01")
    with pytest.raises(RetrievalError, match="field-items-0"):
        Dataset.open(bench.workspace.open("dataset", artifact.id))


@pytest.mark.parametrize(
    ("field", "column"),
    [
        ("categorical", [" "] * 12),
        ("categorical", [None, None, None, "late"] * 3),
        ({"kind": "numeric", "buckets": 4}, pl.Series([None] * 12, dtype=pl.Float64)),
        ({"kind": "numeric", "edges": [1]}, [float("nan"), float("nan"), 3.0, 4.0] * 3),
    ],
)
def test_an_event_field_without_a_value_in_training_is_refused(bench: Bench, log: Log, field: Any, column: Any) -> None:
    with pytest.raises(DataContractError, match="field 'x' has no value in the training part"):
        bench(log(x=column), source={"fields": {"x": field}})


def test_gaps_of_single_events_and_empty_lists_are_no_values(bench: Any, log: Log) -> None:
    with pytest.raises(DataContractError, match="field 'gap' has no value in the training part"):
        bench(log().filter(pl.int_range(pl.len()).over("user_id") < 3), source={"fields": {"gap": "gap"}})
    path = bench.write({"item_id": ITEMS["item_id"], "tags": ["", " | ", None, "|"]}, "items.parquet")
    with pytest.raises(DataContractError, match="field 'tags' has no value in the training part"):
        bench(log(), items={"path": path, "fields": {"tags": "multi"}})


def test_fields_that_say_nothing_in_training_are_warned_of(bench: Any, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[str, list[str]] = {}
    monkeypatch.setattr("retrieval.data.fields.fit.log.warning", lambda text, **words: said.setdefault(words["field"], []).append(text))
    table = {
        "item_id": [10, 20, 30, 40],
        "brand": ["a", "b", "c", "d"],
        "maker": ["x", None, None, None],
        "price": [5.0] * 4,
        "vector": [[1.0, 2.0]] * 4,
        "made": [1_400_000_000] * 4,
        "good": ["a", "b", "a", "b"],
    }
    fields = {
        "brand": {"kind": "categorical", "min_count": 1000},
        "maker": "categorical",
        "price": "numeric",
        "vector": {"kind": "vector", "dimension": 2},
        "made": {"kind": "time", "buckets": 4},
        "good": "categorical",
    }
    source = {"fields": {"age": {"kind": "age", "of": "made"}, "gap": {"kind": "gap", "edges": [90_000]}}}
    found = bench(log(), items={"path": bench.write(table, "items.parquet"), "fields": fields}, source=source)
    most, alike = "most values of a field are unknown in training", "a field says the same of every event of training"
    assert said == {"brand": [alike], "maker": [most], "price": [alike], "vector": [alike], "made": [alike], "age": [alike]}
    assert found.summary["fields"]["items"]["brand"]["unknown_in_training"] == 1.0
    assert found.summary["fields"]["events"]["age"]["alike_in_training"]
    assert not found.summary["fields"]["items"]["good"]["alike_in_training"]


def test_shares_of_several_names_are_of_names() -> None:
    tags = pl.Series([["a", "b", "rare"], ["a"], []], dtype=pl.List(pl.String))
    column = code_column("tags", MultiField(min_count=2), tags, np.array([2, 1, 1]))
    assert column.coding.names == ("a", "b", "rare"), "each twice at least"
    column = code_column("tags", MultiField(min_count=3), tags, np.array([2, 1, 1]))
    found = drift_of(column, np.array([2, 1, 1]), np.array([0, 1, 1]))
    assert (found["unknown_in_training"], found["unknown_later"]) == (0.625, 0.5), "b and rare twice each, and an empty list, of eight"


def test_columns_say_what_they_are() -> None:
    column = code_column("price", NumericField(edges=(1.0, 2.0)), pl.Series([0.5, 1.0, 2.5, None]), np.ones(4, dtype=np.int64))
    assert isinstance(column, FieldColumn)
    assert (column.coding.kind, column.coding.rows, column.codes.tolist()) == ("numeric", 4, [1, 2, 3, 0])
