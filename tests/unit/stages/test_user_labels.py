"""What divides test users in a run: counted in what they had before the cut, and in nothing after it."""

import json
from pathlib import Path

import polars as pl

from retrieval.stages.recipe import parse_recipe
from retrieval.stages.run import open_run

_DAY = 86_400


def test_slices_of_a_run(tmp_path: Path) -> None:
    """Forty users: even ones come daily, odd ones every third day; user u has 6 + u % 4 events, the last two of them held out."""
    rows = [(u, (7 * u + step) % 30, 10_000 * _DAY + step * _DAY * (1 + 2 * (u % 2))) for u in range(40) for step in range(6 + u % 4)]
    pl.DataFrame(rows, ["user_id", "item_id", "time"], orient="row").write_parquet(tmp_path / "log.parquet")
    pl.DataFrame({"user_id": range(40), "town": [f"t{u % 3}" for u in range(40)], "age": ["x", "y"] * 20}).write_parquet(
        tmp_path / "users.parquet"
    )
    recipe = {
        "data": {
            "name": "towns",
            "interactions": {"path": str(tmp_path / "log.parquet"), "user": "user_id", "item": "item_id", "time": "time"},
            "users": {
                "path": str(tmp_path / "users.parquet"),
                "user": "user_id",
                "fields": {"town": "categorical", "user age": {"kind": "categorical", "column": "age"}},
            },
        },
        "split": {"protocol": "leave-last-out"},
        "model": {"name": "markov"},
        "recall": {"n": 5},
        "evaluate": {
            "cutoffs": [5],
            "primary": "recall@5",
            "baselines": [],
            "resamples": 10,
            "slices": {"new_users": 6, "least_users": 15},
        },
    }
    pipeline = open_run(parse_recipe(recipe, "towns.toml"), tmp_path / "workspace")
    summary = json.loads(pipeline.measurements.file("summary.json").read_text())
    found: dict[str, dict[str, int]] = {}
    for each in summary["slices"]:
        if each["about"] == "users":
            found.setdefault(each["dimension"], {})[each["value"]] = each["users"]
            assert each["few"] == (each["users"] < 15)
    # Five to eight events are visible: all in one band of lengths, which divides nobody.
    assert found == {
        "user age": {"new users (below 6 events)": 10, "known users": 30},
        "activity": {"2 to 4": 20, "5 to 9": 20},
        "user age (2)": {"x": 20, "y": 20},
        "town": {"t0": 14, "t1": 13, "t2": 13},
    }
    kept = pl.read_parquet(pipeline.measurements.file("slices.parquet"))
    assert kept.filter(pl.col("town") == "t1")["user_id"].to_list() == list(range(1, 40, 3))
    assert set(kept.filter(pl.col("activity") == "2 to 4")["user_id"]) == set(range(1, 40, 2))
