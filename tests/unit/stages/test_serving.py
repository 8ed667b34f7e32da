"""Lists: what they are a function of, and who is never in them."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from retrieval.core.artifacts import Artifact
from retrieval.core.errors import UsageError
from retrieval.stages.audience import Scope
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recall import recall_settings, settings_of
from retrieval.stages.recipe import Recipe, parse_recipe
from retrieval.stages.run import open_run


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty users walk around a ring of 24 items for 20 steps; items 100 and up appear in the last five steps only."""
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    steps = pl.DataFrame({"user_id": range(30)}).join(pl.DataFrame({"time": range(20)}), how="cross")
    old, new = (pl.col("user_id") + pl.col("time")) % 24, 100 + pl.col("user_id") % 7
    steps.with_columns(item_id=pl.when((pl.col("time") >= 15) & (pl.col("time") % 2 == 1)).then(new).otherwise(old)).write_parquet(path)
    return path


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace")


def recipe_of(log: Path, **recall: Any) -> Recipe:
    interactions = {"path": str(log), "user": "user_id", "item": "item_id", "time": "time", "time_unit": "order"}
    values = {
        "data": {"name": "ring", "interactions": interactions},
        "split": {"protocol": "global-time", "valid_from": 14, "test_from": 15},
        "model": {"name": "mind", "dimension": 8, "history": 6, "similarity": "cosine"},
        "train": {"steps": 4, "loss": {"negatives": 8}},
        "recall": {"n": 12, "pool": 20, "filter_seen": False, **recall},
        "machine": {"threads": 1},
        "evaluate": {"cutoffs": [10], "primary": "recall@10", "baselines": []},
    }
    return parse_recipe(values, "ring.toml")


def lists(pipeline: Pipeline) -> pl.DataFrame:
    found: Artifact = pipeline.candidates(Scope(who="all"))
    return pl.concat(pl.read_parquet(path) for path in found.files("part-"))


def test_items_that_were_not_known_before_the_cut_are_in_no_list(log: Path, workspace: Path) -> None:
    pipeline = open_run(recipe_of(log), workspace)
    unknown = pipeline.dataset.catalog.frame.filter(pl.col("events") == 0)["item_id"]
    assert unknown.to_list() == list(range(100, 107))
    found = lists(pipeline)
    assert found.height == 30 * 12
    assert found.filter(pl.col("item_id").is_in(unknown.to_list())).is_empty()
    assert pipeline.candidates(Scope(who="all")).summary["items_withheld"] == 7


def test_a_block_list_that_went_missing_is_never_taken_for_none(log: Path, workspace: Path, tmp_path: Path) -> None:
    lists(open_run(recipe_of(log), workspace))
    with pytest.raises(UsageError, match="no such file"):
        lists(open_run(recipe_of(log, filter={"block": [str(tmp_path / "gone.txt")]}), workspace))


def test_a_block_list_may_have_spaces_a_byte_order_mark_and_ids_that_left_the_catalog(log: Path, workspace: Path, tmp_path: Path) -> None:
    path = tmp_path / "blocked.txt"
    path.write_text("\ufeff3\n 4 \r\n\nitem_id\n999\n5\n", encoding="utf-8")
    pipeline = open_run(recipe_of(log, filter={"block": [str(path)]}), workspace)
    assert lists(pipeline).filter(pl.col("item_id").is_in([3, 4, 5])).is_empty()
    assert pipeline.candidates(Scope(who="all")).summary["items_withheld"] == 7 + 3


def test_lists_made_in_another_way_are_other_lists(log: Path) -> None:
    recipe = recipe_of(log)
    same = recipe.model_copy(update={"recall": recipe.recall.model_copy(update={"threads": 2})})
    batch = recipe.model_copy(update={"recall": recipe.recall.model_copy(update={"batch_users": 3})})
    search = recipe.model_copy(update={"index": recipe.index.model_copy(update={"nprobe": 1})})
    expected = settings_of(recipe, Scope())
    assert settings_of(same, Scope()) == expected
    # An index given by its id is the same input however it is searched.
    assert settings_of(search, Scope()) != expected
    # Matrix products of another shape round differently.
    assert settings_of(batch, Scope()) != expected


def test_the_machine_decides_threads_where_recall_does_not(log: Path) -> None:
    assert recall_settings(recipe_of(log)).threads == 1
    assert recall_settings(recipe_of(log, threads=3)).threads == 3


def test_users_with_a_short_history_get_a_share_of_what_is_popular(log: Path, workspace: Path, tmp_path: Path) -> None:
    short = tmp_path / "log.parquet"
    # The even users leave after their fifth event.
    pl.read_parquet(log).filter((pl.col("user_id") % 2 == 1) | (pl.col("time") < 5)).write_parquet(short)
    found = lists(open_run(recipe_of(short, mix_in={"below": 6, "share": 0.25}), workspace))
    shares = found.group_by("user_id").agg((pl.col("interest") < 0).sum().alias("popular"), pl.len())
    assert set(shares.filter(pl.col("user_id") % 2 == 0)["popular"]) == {3}
    assert set(shares.filter(pl.col("user_id") % 2 == 1)["popular"]) == {0}
    assert set(shares["len"]) == {12}
    assert found.select(pl.struct("user_id", "item_id").is_duplicated().any()).item() is False
