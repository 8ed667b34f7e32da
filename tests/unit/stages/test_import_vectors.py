"""Vectors that somebody else trained: what comes back is what went out, and bad files are one line."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from retrieval.cli.main import app
from retrieval.core.artifacts import Artifact
from retrieval.core.errors import DataContractError, IntegrityError, RetrievalError, UsageError
from retrieval.stages.audience import Scope
from retrieval.stages.export import ExportSettings
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recipe import parse_recipe
from retrieval.stages.run import headline, open_run, run_all

USERS, ITEMS, DIMENSION = 20, 31, 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace, and a log of users u0 to u19 on items 0 to 30."""
    folder = tmp_path_factory.mktemp("import")
    steps = pl.DataFrame({"user_id": [f"u{i}" for i in range(USERS)]}).join(pl.DataFrame({"time": range(12)}), how="cross")
    events = steps.with_columns(item_id=(pl.col("user_id").str.slice(1).cast(pl.Int64) + pl.col("time") * pl.col("time")) % ITEMS)
    # Every item is met once, so that the catalog is 0 to 30.
    extra = pl.DataFrame({"user_id": ["u0"] * ITEMS, "time": list(range(-ITEMS, 0)), "item_id": list(range(ITEMS))})
    pl.concat([events, extra]).with_columns(time=pl.col("time") * 3600 + 1_600_000_000).write_parquet(folder / "log.parquet")
    return folder


def pipeline_of(folder: Path, model: dict[str, Any], **tables: Any) -> Pipeline:
    interactions = {"path": str(folder / "log.parquet"), "user": "user_id", "item": "item_id", "time": "time"}
    values = {
        "data": {"name": "log", "interactions": interactions},
        "split": {"protocol": "leave-last-out"},
        "train": {"steps": 3, "loss": {"negatives": 8}},
        "model": model,
        "recall": {"n": 5, "pool": 10, "batch_users": 4},
        "evaluate": {"cutoffs": [5], "primary": "recall@5", "baselines": ["popular", "youtube-dnn"], "resamples": 10},
        "machine": {"threads": 1, "device": "cpu"},
        **tables,
    }
    return open_run(parse_recipe(values, "log.toml"), folder / "workspace")


@pytest.fixture(scope="module")
def trained(folder: Path) -> Pipeline:
    return pipeline_of(folder, {"name": "mind", "dimension": 8, "history": 6, "interests": 3})


def imported(trained: Pipeline, folder: Path, where: Path, file_format: Any) -> Pipeline:
    """The pipeline of what another pipeline exported."""
    for name, who in (("now", "all"), ("cut", "held-out")):
        trained.export(where / name, ExportSettings(users=Scope(who=who), format=file_format, shard_rows=11))
    paths = {"items": where / "now/items", "users": where / "now/users", "held_out": where / "cut/users"}
    return pipeline_of(folder, {"name": "imported", **{name: str(path) for name, path in paths.items()}})


def part_hashes(candidates: Artifact) -> list[str]:
    return [record.sha256 for name, record in sorted(candidates.manifest.files.items()) if name.startswith(("part-", "pool-"))]


@pytest.mark.parametrize("file_format", ["parquet", "npy"])
@pytest.mark.parametrize("who", ["all", "held-out"])
def test_what_was_exported_gives_the_same_lists_byte_for_byte(
    trained: Pipeline, folder: Path, tmp_path: Path, file_format: str, who: Any
) -> None:
    other = imported(trained, folder, tmp_path, file_format)
    assert other.model_artifact.id != trained.model_artifact.id
    assert part_hashes(other.candidates(Scope(who=who))) == part_hashes(trained.candidates(Scope(who=who))) != []


def test_imported_vectors_are_indexed_recalled_measured_and_reported(trained: Pipeline, folder: Path, tmp_path: Path) -> None:
    ours, theirs = run_all(trained), run_all(imported(trained, folder, tmp_path, "parquet"))
    assert theirs.measurements.summary["metrics"] == ours.measurements.summary["metrics"]
    # Nothing is trained beside what was trained elsewhere.
    assert set(theirs.baselines) == {"popular"}
    assert "report:" in headline(theirs)
    assert theirs.pipeline.model_artifact.summary["items"] == {"known": ITEMS, "unknown_rows": 0, "without_vector": 0}


def tables(draw: int = 1) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Vectors of all items, in no order, and two of each user."""
    random = np.random.default_rng(draw)
    matrix = random.standard_normal((ITEMS + 2 * USERS, DIMENSION)).astype(np.float32)
    items = pl.DataFrame({"item_id": random.permutation(ITEMS), "vector": matrix[:ITEMS]})
    owners = [f"u{i}" for i in range(USERS)] * 2
    users = pl.DataFrame({"user_id": owners, "interest": [0] * USERS + [2] * USERS, "vector": matrix[ITEMS:]})
    return items, users


def served(folder: Path, where: Path, items: pl.DataFrame, users: pl.DataFrame, **more: Any) -> tuple[Pipeline, pl.DataFrame]:
    items.write_parquet(where / "items.parquet")
    users.write_parquet(where / "users.parquet")
    model = {"name": "imported", "items": str(where / "items.parquet"), "users": str(where / "users.parquet")}
    pipeline = pipeline_of(folder, model, recall={"n": 5, "pool": 31, "filter_seen": False, "diversity": "top"}, **more)
    found = pipeline.candidates(Scope(who="all"))
    return pipeline, pl.concat(pl.read_parquet(path) for path in found.files("part-"))


def expected_lists(items: pl.DataFrame, users: pl.DataFrame, n: int) -> dict[str, list[int]]:
    scores = np.stack(users["vector"].to_list()).astype(float) @ np.stack(items["vector"].to_list()).astype(float).T
    ids, lists = items["item_id"].to_numpy(), {}
    for user in users["user_id"].unique():
        best = scores[(users["user_id"] == user).to_numpy()].max(axis=0)
        lists[user] = ids[np.argsort(-best)[:n]].tolist()
    return lists


def test_lists_are_those_of_a_plain_loop_whatever_the_types(folder: Path, tmp_path: Path) -> None:
    items, users = tables()
    other = items.with_columns(pl.col("item_id").cast(pl.String), pl.col("vector").cast(pl.List(pl.Float64)))
    _, found = served(folder, tmp_path, other, users.sample(fraction=1.0, shuffle=True, seed=3))
    lists = {user: rows["item_id"].to_list() for (user,), rows in found.group_by("user_id", maintain_order=True)}
    assert lists == expected_lists(items, users, 5)
    assert set(found["interest"]) == {0, 2}


def test_ids_that_are_not_there_are_counted_and_items_without_a_vector_are_in_no_list(folder: Path, tmp_path: Path) -> None:
    items, users = tables()
    items = pl.concat([items.filter(pl.col("item_id") > 3), pl.DataFrame({"item_id": [777], "vector": items["vector"][:1]})])
    users = users.with_columns(user_id=pl.when(pl.col("user_id") == "u7").then(pl.lit("stranger")).otherwise("user_id"))
    pipeline, found = served(folder, tmp_path, items, users)
    summary = pipeline.model_artifact.summary
    assert summary["items"] == {"known": 27, "unknown_rows": 1, "without_vector": 4}
    assert summary["users"] == {"known": 19, "unknown_rows": 2, "without_vector": 1}
    assert found.filter(pl.col("item_id").is_in([0, 1, 2, 3, 777])).is_empty()
    assert set(found.filter(pl.col("user_id") == "u7")["interest"]) == {-1}
    assert (found.filter(pl.col("user_id") != "u7")["interest"] >= 0).all()


def test_users_now_are_never_evaluated(folder: Path, tmp_path: Path) -> None:
    pipeline, _ = served(folder, tmp_path, *tables())
    with pytest.raises(UsageError, match=r"set model.held_out"):
        _ = pipeline.measurements
    with pytest.raises(UsageError, match="trained elsewhere"):
        pipeline.train_until(3)


def item_vector(items: pl.DataFrame, value: Any) -> pl.DataFrame:
    return items.with_columns(vector=pl.Series([value, *items["vector"].to_list()[1:]], dtype=pl.List(pl.Float32)))


BAD = {
    "longer": (lambda i, u: (i, u.with_columns(vector=pl.concat_arr("vector", pl.lit(0.0, pl.Float32)))), "items 4, users 5"),
    "ragged": (lambda i, u: (item_vector(i, [1.0]), u), "1 to 4 dimensions"),
    "nan": (lambda i, u: (item_vector(i, [1.0, np.nan, 1.0, 1.0]), u), "1 vectors are not finite, the first in row 0"),
    "null number": (lambda i, u: (item_vector(i, [1.0, None, 1.0, 1.0]), u), "1 missing numbers"),
    "null vector": (lambda i, u: (item_vector(i, None), u), "with 1 nulls"),
    "huge": (lambda i, u: (i.with_columns(pl.col("vector").cast(pl.Array(pl.Float64, 4)) * 1e39), u), "float32 can hold"),
    "text": (lambda i, u: (i.with_columns(vector=pl.lit("x")), u), "column 'vector' is String"),
    "no vector": (lambda i, u: (i.drop("vector"), u), "has no column 'vector'"),
    "no id": (lambda i, u: (i, u.rename({"user_id": "user"})), "has no column 'user_id'"),
    "null id": (lambda i, u: (i, u.with_columns(user_id=pl.lit(None, pl.String))), "40 null ids"),
    "twice": (lambda i, u: (pl.concat([i, i[:1]]), u), "1 rows repeat an id, the first item_id"),
    "seven and '7'": (lambda i, u: (i.with_columns(item_id=pl.lit("07")), u), "30 rows repeat an id"),
    "two without a number": (lambda i, u: (i, u.drop("interest")), "number a user's in a column 'interest'"),
    "interest": (lambda i, u: (i, u.with_columns(interest=pl.lit(-1))), "does not number a user's vectors"),
    "interest of an item": (lambda i, u: (i.with_columns(interest=pl.lit(1)), u), "an item has one vector"),
    "nobody": (lambda i, u: (i, u.with_columns(user_id=pl.lit("x") + pl.col("user_id"))), "none of 40 rows has an id of the dataset"),
    "no rows": (lambda i, u: (i, u[:0]), "holds no vector"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_one_line(folder: Path, tmp_path: Path, case: str) -> None:
    change, words = BAD[case]
    with pytest.raises(DataContractError, match=words) as raised:
        served(folder, tmp_path, *change(*tables()))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (np.zeros((ITEMS, 3), np.float32), "items 3, users 4"),
        (np.zeros((ITEMS - 1, 4), np.float32), r"float32\[30, 4\]"),
        (np.zeros((ITEMS, 4), np.int64), r"int64\[31, 4\]"),
        (None, "is no readable matrix"),
    ],
)
def test_a_bad_matrix_is_one_line(folder: Path, tmp_path: Path, matrix: Any, words: str) -> None:
    items, users = tables()
    if matrix is None:
        (tmp_path / "items.npy").write_bytes(b"\x93NUMPY")
    else:
        np.save(tmp_path / "items.npy", matrix)
    with pytest.raises(DataContractError, match=words):
        served(folder, tmp_path, items.drop("vector"), users)


def test_an_export_that_changed_on_its_way_is_refused(trained: Pipeline, folder: Path, tmp_path: Path) -> None:
    other = imported(trained, folder, tmp_path, "npy")
    path = tmp_path / "now/items/part-00001.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match="is damaged"):
        _ = other.model_artifact


def test_other_bytes_are_another_model_and_another_place_is_not(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first, same = (served(folder, tmp_path / name, *tables())[0] for name in ("a", "b"))
    other, _ = served(folder, tmp_path / "a", *tables(draw=2))
    assert first.model_artifact.id == same.model_artifact.id != other.model_artifact.id


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"items": "x", "users": ""}, "need those of users"),
        ({"users": "x"}, "model.items"),
        ({"items": "nowhere", "users": "nowhere"}, "no such file or folder"),
    ],
)
def test_settings_that_cannot_be_are_one_line(folder: Path, model: dict[str, str], words: str) -> None:
    with pytest.raises(RetrievalError, match=words):
        _ = pipeline_of(folder, {"name": "imported", **model}).model_artifact


def test_users_are_exported_only_into_a_folder(tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["embed", "pipelines/sample.toml", "--users", "held-out", "-w", str(tmp_path)])
    assert isinstance(found.exception, UsageError)
    assert "--export FOLDER" in str(found.exception)
