"""Users explained: what stands in a gallery is what the run served, and the map shows what it says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from plotly.offline import get_plotlyjs

from retrieval.core.errors import DataContractError
from retrieval.report.explained import ExplainedUser
from retrieval.report.page import _own_source
from retrieval.stages.audience import Scope
from retrieval.stages.explain import explain_sample, explain_users
from retrieval.stages.gallery import gallery, write_gallery
from retrieval.stages.item_map import make_map, map_table
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recipe import parse_recipe
from retrieval.stages.run import open_run, run_all


def pipeline_on(folder: Path, **tables: Any) -> Pipeline:
    """Thirty users walk around a ring of 40 items of five categories; an item in eight has no title, one in eleven no category."""
    if not (folder / "log.parquet").exists():
        steps = pl.DataFrame({"user_id": range(30)}).join(pl.DataFrame({"time": range(10)}), how="cross")
        steps.with_columns(item_id=(3 * pl.col("user_id") + pl.col("time")) % 40).write_parquet(folder / "log.parquet")
        titles = [None if item % 8 == 0 else f"title {item}" for item in range(40)]
        genres = [[] if item % 11 == 0 else [f"c{item // 8}"] for item in range(40)]
        pl.DataFrame({"item_id": range(40), "title": titles, "genres": genres}).write_parquet(folder / "items.parquet")
    items = {"path": str(folder / "items.parquet"), "categories": "genres", "title": "title"}
    interactions = {"path": str(folder / "log.parquet"), "user": "user_id", "item": "item_id", "time": "time", "time_unit": "order"}
    values = {
        "data": {"name": "ring", "interactions": interactions, "items": items},
        "split": {"protocol": "leave-last-out"},
        "model": {"name": "comirec-sa", "dimension": 8, "history": 6, "interests": 2},
        "train": {"steps": 4, "loss": {"negatives": 8}},
        "recall": {"n": 10, "pool": 30, "lambda": 2.0, "scale_free": True},
        "evaluate": {
            "cutoffs": [10],
            "primary": "recall@10",
            "baselines": ["popular"],
            "resamples": 50,
            "frontier_builders": ["category_greedy"],
            "frontier_lambdas": [0.0, 2.0],
        },
        "machine": {"threads": 1},
        **tables,
    }
    return open_run(parse_recipe(values, "ring.toml"), folder / "workspace")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ring")


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Pipeline:
    return pipeline_on(folder)


@pytest.fixture(scope="module")
def users(pipeline: Pipeline) -> list[ExplainedUser]:
    return list(explain_sample(pipeline, 30, 10))


def test_the_lists_are_those_that_recall_writes(pipeline: Pipeline, users: list[ExplainedUser]) -> None:
    written = pl.read_parquet(pipeline.candidates(Scope()).files("part-")).sort("user_id", "rank")
    assert len(users) == 30
    shown = [(user.user, item.item_id, item.rank, item.interest) for user in users for item in user.items]
    assert shown == written.select("user_id", "item_id", "rank", "interest").rows()
    scores = [item.score for user in users for item in user.items]
    assert scores == pytest.approx(written["score"].to_list(), abs=6e-5)


def test_hits_are_the_hidden_items(pipeline: Pipeline, users: list[ExplainedUser]) -> None:
    truth = pl.read_parquet(pipeline.dataset_artifact.file("truth.parquet")).filter(pl.col("split") == "test")
    targets = set(truth.select("user_id", "item_id").rows())
    listed = [(user.user, item) for user in users for items in (user.items, user.by_score) for item in items]
    assert any(item.hit for _, item in listed)
    assert all(item.hit == ((user, item.item_id) in targets) for user, item in listed)
    assert {user.targets for user in users} == {1}


def test_ranks_by_score_agree_with_the_list_by_score(users: list[ExplainedUser]) -> None:
    assert any([item.item_id for item in user.items] != [item.item_id for item in user.by_score] for user in users)
    for user in users:
        by_score = {item.item_id: item.rank for item in user.by_score}
        assert [item.rank_by_score for item in user.items] == [by_score.get(item.item_id) for item in user.items]
        assert [item.score for item in user.by_score] == sorted((item.score for item in user.by_score), reverse=True)


def test_a_history_is_complete_and_ends_before_what_is_hidden(pipeline: Pipeline, users: list[ExplainedUser]) -> None:
    log = pl.read_parquet(pipeline.recipe.data.interactions.path).sort("user_id", "time")
    for user in users:
        items = log.filter(pl.col("user_id") == user.user)["item_id"].to_list()
        assert [item.item_id for item in user.history] == items[:-1][::-1]
        assert sum(category.events for category in user.categories) == user.events == 9
        assert sum(interest.items for interest in user.interests) == len(user.items)


def test_drivers_are_events_and_nearest_items_are_the_largest_products(pipeline: Pipeline, users: list[ExplainedUser]) -> None:
    vectors = np.load(pipeline.vectors.file("items.npy"))
    interests = pl.read_parquet(pipeline.candidates(Scope()).files("interests-"))
    for user in users[:5]:
        titles = {item.title for item in user.history[:6]}
        assert all(set(item.driven_by) <= titles and len(set(item.driven_by)) == 3 for item in user.items)
        for interest in user.interests:
            rows = interests.filter((pl.col("user_id") == user.user) & (pl.col("interest") == interest.interest))
            best = np.argsort(-(vectors @ rows["vector"].to_numpy()[0]), kind="stable")[:5]
            assert [item.item_id for item in interest.nearest] == best.tolist()
            assert interest.drivers_by == "routing"
            assert {item.title for item in interest.drivers} <= titles


def test_an_item_without_a_title_or_category_is_named_by_its_id(users: list[ExplainedUser]) -> None:
    found = {item.item_id: item for user in users for item in user.history}
    assert found[8].title == "8"
    assert found[11].category is None
    assert found[9].title == "title 9"


def test_named_users_have_their_whole_history_and_no_hits(pipeline: Pipeline) -> None:
    (user,) = explain_users(pipeline, ["7"], 4)
    assert (user.user, user.events, user.targets, len(user.items)) == (7, 10, None, 4)
    assert {item.hit for item in user.items} == {None}
    with pytest.raises(DataContractError, match="no user '99'"):
        list(explain_users(pipeline, ["7", "99"], 4))


def test_probabilities_are_shown_where_recall_writes_them(folder: Path) -> None:
    calibrated = pipeline_on(folder, recall={"n": 10, "pool": 30, "scores": "platt"})
    written = pl.read_parquet(calibrated.candidates(Scope()).files("part-")).sort("user_id", "rank")
    scores = [item.score for user in explain_sample(calibrated, 30, 10) for item in user.items]
    assert scores == pytest.approx(written["score"].to_list(), abs=6e-5)
    assert all(0 <= score <= 1 for score in scores)


def test_the_gallery_is_written_whole(pipeline: Pipeline, tmp_path: Path) -> None:
    found = gallery(pipeline, (), 3, 10)
    write_gallery(found, tmp_path / "new" / "gallery.html")
    text = (tmp_path / "new" / "gallery.html").read_text(encoding="utf-8")
    assert all(f"User {user.user}</h3>" in text for user in found.users)
    assert "category_greedy, lambda 2" in text
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["gallery.html"]


def test_the_map_holds_the_sample_the_history_and_the_interests(folder: Path, pipeline: Pipeline) -> None:
    found = make_map(pipeline, 7)
    assert found is not None
    counts = map_table(found)["kind"].value_counts(sort=False).sort("kind").rows()
    assert counts == [("history", 9), ("interest", 2), ("item", 40)]
    assert (found.items, found.catalog, found.user) == (40, 40, 7)
    assert sum(category.items for category in found.categories) == 36
    assert make_map(pipeline, 7) == found
    fewer = make_map(pipeline_on(folder, report={"map_items": 20}), 7)
    assert fewer is not None
    assert (fewer.items, sum(point.kind == "item" for point in fewer.points)) == (20, 20)
    assert make_map(pipeline_on(folder, report={"map_items": 0}), 7) is None


def test_the_report_has_all_of_it(pipeline: Pipeline) -> None:
    report = run_all(pipeline).report
    content = json.loads(report.file("report.json").read_text(encoding="utf-8"))
    assert len(content["interests"]["sample_users"]) == pipeline.recipe.report.users
    assert content["interests"]["findings"]
    assert content["index"]["factory"] == "exact"
    assert content["index"]["held"] is True
    assert content["data"]["split"]["test_users"] == 30
    assert pl.read_parquet(report.file("map.parquet")).height == len(content["interests"]["item_map"]["points"])
    page = report.file("index.html").read_text(encoding="utf-8")
    for title in ("Interest health", "Map of the items", "Index quality", "Data quality", "Time and memory"):
        assert f">{title}</h2>" in page
    assert report.file("index.html").stat().st_size < 8_000_000
    assert all(script in page for script in (get_plotlyjs(), _own_source()))


def test_a_secret_in_a_title_is_in_no_page(pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_API_TOKEN", "title 20")
    found = gallery(pipeline, (), 30, 10)
    write_gallery(found, tmp_path / "gallery.html")
    text = (tmp_path / "gallery.html").read_text(encoding="utf-8") + found.model_dump_json()
    assert "title 20" not in text
    assert "***" in text
    assert "title 21" in text
