"""Fields from tables to lists: what has no event is found by what it is."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from retrieval.core.errors import UsageError
from retrieval.core.settings import with_values
from retrieval.stages.audience import Scope
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recipe import parse_recipe
from retrieval.stages.run import open_run

GROUPS, ITEMS, USERS = 4, 40, 60
NEW = 1000


def write_tables(folder: Path) -> None:
    """Users of one group each who like its items; a new item in every group; a new user for every taste."""
    random = np.random.default_rng(4)
    taste = np.arange(USERS) % GROUPS
    items = random.integers(ITEMS // GROUPS, size=(USERS, 12)) * GROUPS + taste[:, None]
    log = {"user_id": np.repeat(np.arange(USERS), 12), "item_id": items.ravel(), "timestamp": np.tile(np.arange(12), USERS)}
    pl.DataFrame(log).with_columns(device=pl.Series(["tv", "web"]).gather(items.ravel() % 2)).write_parquet(folder / "log.parquet")
    ids = [*range(ITEMS), *range(NEW, NEW + GROUPS)]
    groups = pl.DataFrame({"item_id": ids, "group": [f"g{number % GROUPS}" for number in ids], "price": [float(number) for number in ids]})
    groups.write_parquet(folder / "items.parquet")
    tastes = [f"t{number % GROUPS}" for number in range(USERS)] + [f"t{number}" for number in range(GROUPS)]
    pl.DataFrame({"user_id": [*range(USERS), *range(NEW, NEW + GROUPS)], "taste": tastes}).write_parquet(folder / "users.parquet")


def pipeline_on(folder: Path, fields: dict[str, Any], **changes: Any) -> Pipeline:
    folder.mkdir(exist_ok=True)
    write_tables(folder)
    log = {"path": str(folder / "log.parquet"), "time_unit": "order", "fields": {"device": "categorical"}}
    values = {
        "name": "fields",
        "data": {
            "name": "log",
            "interactions": log,
            "items": {
                "path": str(folder / "items.parquet"),
                "fields": {"group": "categorical", "price": {"kind": "numeric", "buckets": 2}},
            },
            "users": {"path": str(folder / "users.parquet"), "fields": {"taste": "categorical"}},
            "keep_items_without_events": True,
        },
        "split": {"protocol": "leave-last-out"},
        "model": {"name": "comirec-sa", "dimension": 16, "interests": 2, "history": 10, "fields": fields},
        "train": {
            "steps": 60,
            "validate_every": 60,
            "examples": {"batch_size": 16},
            "loss": {"negatives": 32},
            "optimizer": {"learning_rate": 0.03},
        },
        "recall": {"n": 11, "filter_seen": False, "pool": 20},
        "evaluate": {"cutoffs": [5, 10], "primary": "recall@10"},
        "machine": {"threads": 1, "device": "cpu"},
    }
    return open_run(parse_recipe(with_values(values, changes, "test"), "fields.toml"), folder / "workspace")


def test_an_item_without_an_event_is_given_to_those_who_like_what_is_like_it(tmp_path: Path) -> None:
    pipeline = pipeline_on(tmp_path, {"items": ["group"], "id_dropout": 0.3})
    lists = pl.read_parquet(pipeline.candidates(Scope(who="all")).files("part-"))
    own = lists.filter(pl.col("item_id") == NEW + pl.col("user_id") % GROUPS)
    others = lists.filter((pl.col("item_id") >= NEW) & (pl.col("item_id") != NEW + pl.col("user_id") % GROUPS))
    assert own["user_id"].n_unique() > 0.9 * USERS
    assert len(others) < 0.1 * USERS


def test_unknown_names_are_refused_with_the_near_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"model.fields reads 'grop', which data.items.fields do not declare; did you mean 'group'"):
        pipeline_on(tmp_path, {"items": ["grop"]})


def test_a_user_without_an_event_gets_what_users_like_them_like(tmp_path: Path) -> None:
    fields = {"users": ["taste", "activity"], "events": ["device"], "history_dropout": 0.2, "poso": {"form": "mlp"}}
    pipeline = pipeline_on(tmp_path, fields, **{"data.keep_users_without_events": True})
    lists = pl.read_parquet(pipeline.candidates(Scope(who="all")).files("part-"))
    new = lists.filter(pl.col("user_id") >= NEW)
    assert new["user_id"].n_unique() == GROUPS
    assert new["interest"].min() >= 0, "no stranger who gets what is popular"
    own = new.filter((pl.col("item_id") % GROUPS == pl.col("user_id") % GROUPS) & (pl.col("rank") <= 5))
    assert len(own) > 0.8 * 5 * GROUPS


def test_without_fields_users_without_an_event_get_what_is_popular(tmp_path: Path) -> None:
    pipeline = pipeline_on(tmp_path, {}, **{"data.keep_users_without_events": True})
    lists = pl.read_parquet(pipeline.candidates(Scope(who="all")).files("part-"))
    assert lists.filter(pl.col("user_id") >= NEW)["interest"].unique().to_list() == [-1]
    assert lists.filter(pl.col("user_id") < USERS)["interest"].min() == 0
