"""Filters of items: one mask, the same as a plain loop would make, and errors of one line."""

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from retrieval.core.errors import DataContractError, UsageError
from retrieval.stages.audience import Scope
from retrieval.stages.item_filter import filter_identity, item_mask, newest_event
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recipe import parse_recipe
from retrieval.stages.run import open_run

DAY, START, ITEMS = 86_400, 1_600_000_000, 24
GENRES = ["drama|crime", "comedy", "", "drama"]
REGIONS = ["EU", "US", None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty users walk around a ring of items, an event a day; item i was made on day i."""
    folder = tmp_path_factory.mktemp("filter")
    events = pl.DataFrame({"user_id": range(30)}).join(pl.DataFrame({"day": range(20)}), how="cross")
    events = events.with_columns(item_id=(pl.col("user_id") + pl.col("day")) % ITEMS, time=START + pl.col("day") * DAY)
    events.drop("day").write_parquet(folder / "log.parquet")
    rows = range(ITEMS)
    items = {
        "item_id": rows,
        "genres": [GENRES[i % 4] for i in rows],
        "region": [REGIONS[i % 3] for i in rows],
        "price": [None if i == 5 else float(i) for i in rows],
        "made": [START + i * DAY for i in rows],
    }
    pl.DataFrame(items).write_parquet(folder / "items.parquet")
    return folder


def pipeline_of(folder: Path, item_filter: dict[str, Any] | None = None, **recall: Any) -> Pipeline:
    fields = {"region": "categorical", "price": "numeric", "made": "time"}
    values = {
        "data": {
            "name": "ring",
            "interactions": {"path": str(folder / "log.parquet"), "user": "user_id", "item": "item_id", "time": "time"},
            "items": {"path": str(folder / "items.parquet"), "categories": "genres", "fields": fields},
        },
        "split": {"protocol": "leave-last-out"},
        "model": {"name": "mind", "dimension": 8, "history": 6},
        "train": {"steps": 2, "loss": {"negatives": 8}},
        "recall": {"n": 12, "pool": 20, "filter_seen": False, "filter": item_filter or {}, **recall},
        "machine": {"threads": 1},
        "evaluate": {"cutoffs": [10], "primary": "recall@10", "baselines": []},
    }
    return open_run(parse_recipe(values, "ring.toml"), folder / "workspace")


def open_items(folder: Path, item_filter: dict[str, Any], *, at_the_cut: bool = False) -> set[int]:
    pipeline = pipeline_of(folder, item_filter)
    mask = item_mask(pipeline.recipe, pipeline.dataset, pipeline.vectors, at_the_cut=at_the_cut)
    return set(np.flatnonzero(~mask.blocked).tolist())


WHERE = [
    ({"categories": {"any_of": ["drama"]}}, lambda i: i % 4 in (0, 3)),
    ({"categories": {"any_of": ["comedy", "crime"]}}, lambda i: i % 4 in (0, 1)),
    ({"categories": {"none_of": ["crime"]}}, lambda i: i % 4 != 0),
    ({"categories": {"any_of": ["drama"], "none_of": ["crime"]}}, lambda i: i % 4 == 3),
    ({"region": {"any_of": ["EU"]}}, lambda i: i % 3 == 0),
    ({"region": {"none_of": ["EU"]}}, lambda i: i % 3 != 0),
    ({"price": {"at_most": 7}}, lambda i: i <= 7 and i != 5),
    ({"price": {"at_least": 3, "at_most": 7}}, lambda i: 3 <= i <= 7 and i != 5),
    ({"made": {"at_least": START + 4 * DAY}}, lambda i: i >= 4),
    ({"made": {"at_most": dt.datetime.fromtimestamp(START + 4 * DAY, dt.UTC)}}, lambda i: i <= 4),
    ({"made": {"within_days": 3}}, lambda i: 16 <= i <= 19),
    ({"made": {"within_days": 9}, "region": {"any_of": ["US"]}, "price": {"at_least": 12}}, lambda i: 12 <= i <= 19 and i % 3 == 1),
]


@pytest.mark.parametrize(("where", "rule"), WHERE)
def test_the_mask_is_that_of_a_plain_loop(folder: Path, where: dict[str, Any], rule: Any) -> None:
    assert open_items(folder, {"where": where}) == {i for i in range(ITEMS) if rule(i)}


def test_freshness_counts_from_the_cut_where_lists_are_made_for_it(folder: Path) -> None:
    # The last visible event of a test user is the one before the last.
    assert newest_event(pipeline_of(folder).dataset, at_the_cut=True) == START + 18 * DAY
    assert open_items(folder, {"where": {"made": {"within_days": 2}}}, at_the_cut=True) == {16, 17, 18}


def test_lists_and_columns_are_combined(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "allow.txt").write_text("\n".join(map(str, range(10))))
    pl.DataFrame({"item_id": [11, 13]}).write_parquet(tmp_path / "more.parquet")
    (tmp_path / "block.csv").write_text("item_id,why\n3,old\n6,old\n")
    lists = {"allow": [str(tmp_path / "allow.txt"), str(tmp_path / "more.parquet")], "block": [str(tmp_path / "block.csv")]}
    assert open_items(folder, lists) == {0, 1, 2, 4, 5, 7, 8, 9, 11, 13}
    assert open_items(folder, {**lists, "where": {"region": {"none_of": ["EU"]}}}) == {1, 2, 4, 5, 7, 8, 11, 13}


@pytest.mark.parametrize("factory", ["exact", "Flat", "IVF4,Flat"])
def test_lists_hold_open_items_only_and_all_of_them(folder: Path, factory: str) -> None:
    pytest.importorskip("faiss", reason="the extra `cpu` is not installed")
    pipeline = pipeline_of(folder, {"where": {"region": {"any_of": ["EU"]}}})
    recipe = pipeline.recipe.model_copy(update={"index": pipeline.recipe.index.model_copy(update={"factory": factory, "nprobe": 4})})
    found = Pipeline(recipe, pipeline.stages).candidates(Scope(who="all"))
    lists = pl.concat(pl.read_parquet(path) for path in found.files("part-"))
    assert set(lists["item_id"]) == set(range(0, ITEMS, 3))
    assert lists.height == 30 * 8
    assert found.summary["withheld_by"] == {"where.region": 16}


@pytest.mark.parametrize(
    ("item_filter", "words"),
    [
        ({"where": {"regon": {"any_of": ["EU"]}}}, r"regon: the catalog has no such column; .*did you mean 'region'"),
        ({"where": {"region": {"at_least": 3}}}, "the column holds names; expected any_of and none_of"),
        ({"where": {"price": {"any_of": ["3"]}}}, "the column holds numbers; expected at_least and at_most"),
        ({"where": {"price": {"within_days": 3}}}, "the column holds numbers"),
        ({"where": {"made": {"none_of": ["x"]}}}, "the column holds times; .*within_days"),
        ({"where": {"region": {}}}, "expected any_of, none_of, at_least, at_most or within_days"),
        ({"where": {"made": {"within_days": 0}}}, "greater than 0"),
        ({"where": {"made": {"withindays": 3}}}, "did you mean 'within_days'"),
        ({"allow": ["nowhere.txt"]}, "no such file; .*recall.filter.allow"),
    ],
)
def test_a_filter_that_cannot_be_is_one_line(folder: Path, item_filter: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as raised:
        open_items(folder, item_filter)
    assert "\n" not in str(raised.value)


def test_filters_that_leave_nothing_stop_the_run(folder: Path) -> None:
    where = {"region": {"any_of": ["EU"]}, "categories": {"any_of": ["opera"]}}
    with pytest.raises(DataContractError, match=r"no item of 24 is left: where.region 16, where.categories 24"):
        open_items(folder, {"where": where})


def test_the_bytes_of_a_list_and_not_its_name_decide(folder: Path, tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("3\n")

    def identity(path: str, **where: Any) -> dict[str, Any]:
        recipe = pipeline_of(folder, {"block": [str(tmp_path / path)], "where": where}).recipe
        return filter_identity(recipe.recall.filter)

    first = identity("a.txt")
    assert identity("b.txt") == first != identity("b.txt", region={"any_of": ["EU"]})
    (tmp_path / "a.txt").write_text("4\n")
    assert identity("a.txt") != first
