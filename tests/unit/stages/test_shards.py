"""Lists in shards and parts: the same rows as in one go, whoever is killed in between."""

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from retrieval.cli.main import app
from retrieval.core.artifacts import Artifact
from retrieval.core.errors import IntegrityError, ResourceError, UsageError
from retrieval.stages.audience import Audience, Scope
from retrieval.stages.evaluate_files import evaluate_files
from retrieval.stages.over_ray import RaySettings, plainly
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.ray_shards import make_shard
from retrieval.stages.recipe import parse_recipe
from retrieval.stages.run import open_run

EVERYONE, HELD_OUT = Scope(who="all"), Scope()
USERS, BATCH = 30, 4


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace up to the index, of thirty users around a ring of items."""
    folder = tmp_path_factory.mktemp("shards")
    steps = pl.DataFrame({"user_id": range(USERS)}).join(pl.DataFrame({"time": range(20)}), how="cross")
    steps.with_columns(item_id=(pl.col("user_id") * 2 + pl.col("time")) % 40).write_parquet(folder / "log.parquet")
    _ = pipeline_in(folder).index
    return folder


@pytest.fixture
def folder(indexed: Path, tmp_path: Path) -> Path:
    """A copy of that workspace for one test."""
    return Path(shutil.copytree(indexed, tmp_path / "copy"))


def pipeline_in(folder: Path) -> Pipeline:
    interactions = {"path": str(folder / "log.parquet"), "user": "user_id", "item": "item_id", "time": "time", "time_unit": "order"}
    values = {
        "data": {"name": "ring", "interactions": interactions},
        "split": {"protocol": "leave-last-out"},
        "model": {"name": "mind", "dimension": 8, "history": 6, "interests": 3},
        "train": {"steps": 3, "loss": {"negatives": 8}},
        "recall": {"n": 8, "pool": 12, "batch_users": BATCH},
        "machine": {"threads": 1},
        "evaluate": {"cutoffs": [5], "primary": "recall@5", "baselines": []},
    }
    return open_run(parse_recipe(values, "ring.toml"), folder / "workspace")


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two batches a part."""
    monkeypatch.setattr("retrieval.stages.candidate_files.PART_USERS", 2 * BATCH + 1)


def rows(*found: Artifact) -> pl.DataFrame:
    return pl.concat(pl.read_parquet(path) for each in found for path in each.files("part-"))


def shards_of(pipeline: Pipeline, scope: Scope, of: int) -> list[Artifact]:
    return [pipeline.candidates(scope.of_shards(number, of)) for number in range(1, of + 1)]


@pytest.mark.parametrize("of", [1, 3, 8, 11])
@pytest.mark.parametrize("users", [0, 3, 30, 32])
def test_shares_are_whole_batches_that_lie_side_by_side(of: int, users: int) -> None:
    import numpy as np

    audience = Audience(np.arange(users), np.ones(users, np.int64), np.full(users, "all"))
    shares = [audience.share(number, of, BATCH).users for number in range(1, of + 1)]
    assert np.concatenate(shares).tolist() == list(range(users))
    assert all(share[0] % BATCH == 0 for share in shares if len(share))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) < 2 * BATCH


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(("scope", "of"), [(EVERYONE, 3), (HELD_OUT, 2)])
def test_shards_joined_are_what_one_run_writes(folder: Path, tmp_path: Path, scope: Scope, of: int) -> None:
    shutil.copytree(folder, tmp_path / "whole")
    pipeline, alone = pipeline_in(folder), pipeline_in(tmp_path / "whole")
    whole, shards = alone.candidates(scope), shards_of(pipeline, scope, of)
    assert len({each.id for each in [whole, *shards]}) == of + 1
    assert rows(*shards).equals(rows(whole))
    joined = pipeline.joined(scope, of)
    assert (joined.id, joined.manifest.files, joined.summary) == (whole.id, whole.manifest.files, whole.summary)
    assert pipeline.candidates(scope).id == joined.id


def test_a_shard_without_users_is_a_table_without_rows(folder: Path, tmp_path: Path) -> None:
    pipeline, of = pipeline_in(folder), 10
    shards = shards_of(pipeline, EVERYONE, of)
    nobody = [shard for shard in shards if shard.summary["users"] == 0]
    some = next(shard for shard in shards if shard.summary["users"])
    assert len(nobody) == of - 8
    for shard in nobody:
        (part,) = shard.files("part-")
        assert pl.read_parquet(part).schema == pl.read_parquet(some.files("part-")[0]).schema
        assert pl.read_parquet(part).height == 0
    pl.DataFrame({"user_id": [0], "item_id": [0]}).write_parquet(tmp_path / "truth.parquet")
    found = evaluate_files(nobody[0].path, tmp_path / "truth.parquet", None, None, "test", ())
    assert found.metrics["recall@50"].mean == 0.0
    assert pipeline.joined(EVERYONE, of).summary["users"] == USERS


@pytest.mark.usefixtures("small_parts")
def test_a_shard_that_is_missing_or_damaged_is_said(folder: Path) -> None:
    pipeline = pipeline_in(folder)
    first = pipeline.candidates(EVERYONE.of_shards(1, 2))
    with pytest.raises(UsageError, match=r"shard 2/2 is not there; .*--shard 2/2"):
        pipeline.joined(EVERYONE, 2)
    pipeline.candidates(EVERYONE.of_shards(2, 2))
    first.files("part-")[0].write_bytes(b"PAR1")
    with pytest.raises(IntegrityError, match="is damaged"):
        pipeline_in(folder).joined(EVERYONE, 2)


@pytest.mark.usefixtures("small_parts")
def test_a_recall_that_died_searches_only_what_it_had_not_finished(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(folder, tmp_path / "whole")
    whole = pipeline_in(tmp_path / "whole").candidates(EVERYONE)
    pipeline = pipeline_in(folder)
    encode, batches = type(pipeline.users)._batch, []

    def dying(self: Any, audience: Any) -> Any:
        batches.append(len(audience.users))
        if len(batches) == 7:
            raise KeyboardInterrupt
        return encode(self, audience)

    monkeypatch.setattr(type(pipeline.users), "_batch", dying)
    with pytest.raises(KeyboardInterrupt):
        pipeline.candidates(EVERYONE)
    assert not list((folder / "workspace/candidates").glob("*"))
    batches[:] = [0] * 10
    again = pipeline.candidates(EVERYONE)
    # Of four parts of eight users two were finished, or three where the third was waiting to be written.
    assert batches[10:] in ([4, 4, 4, 2], [4, 2])
    assert (again.manifest.files, again.summary) == (whole.manifest.files, whole.summary)
    assert not [path for path in (folder / "workspace/.staging").iterdir() if path.is_dir()]


@pytest.mark.usefixtures("small_parts")
def test_an_error_behind_the_search_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(ResourceError, match="the disk is full"):
        patch.setattr("retrieval.stages.candidate_files.write_frame", full)
        pipeline_in(folder).candidates(EVERYONE)
    assert pipeline_in(folder).candidates(EVERYONE).summary["users"] == USERS


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--shard", "3/2"], "is no share"),
        (["--shard", "0/2"], "is no share"),
        (["--shard", "1"], "is no share"),
        (["--shard", "1/2", "--join", "2"], "exclude each other"),
        (["--shard", "1/2", "--engine", "ray"], "makes and joins the shards itself"),
    ],
)
def test_a_share_that_cannot_be_is_one_line(options: list[str], words: str) -> None:
    found = CliRunner().invoke(app, ["recall", "pipelines/sample.toml", *options])
    assert isinstance(found.exception, UsageError)
    assert words in str(found.exception)


def orders_of(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The orders that a recall in four tasks gives, none of which is carried out."""
    given: dict[str, Any] = {}

    def note(task: Any, orders: Any, settings: Any, **more: Any) -> Any:
        given.update(orders)
        return iter(())

    with monkeypatch.context() as patch, pytest.raises(UsageError, match="is not there"):
        patch.setattr("retrieval.stages.ray_shards.run_tasks", note)
        pipeline.candidates(EVERYONE)
    return given


def on_ray(folder: Path, shards: int = 4) -> Pipeline:
    pipeline = pipeline_in(folder)
    machine = pipeline.recipe.machine.model_copy(update={"engine": "ray", "ray": RaySettings(shards=shards)})
    return Pipeline(pipeline.recipe.model_copy(update={"machine": machine}), pipeline.stages)


@pytest.mark.usefixtures("small_parts")
def test_tasks_make_what_one_run_makes_and_leave_nothing_else(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(folder, tmp_path / "whole")
    whole = pipeline_in(tmp_path / "whole").candidates(EVERYONE)
    # Four shards were asked for, of which one is there; the others are made in any order.
    pipeline_in(folder).candidates(EVERYONE.of_shards(2, 4))
    made: list[str] = []

    def here(task: Any, orders: Any, settings: Any, **more: Any) -> Any:
        for name, order in reversed(orders.items()):
            made.append(name)
            yield name, task(order)

    monkeypatch.setattr("retrieval.stages.ray_shards.run_tasks", here)
    monkeypatch.chdir(tmp_path)
    found = on_ray(folder).candidates(EVERYONE)
    assert made == ["4/4", "3/4", "1/4"]
    assert (found.id, found.manifest.files, found.summary) == (whole.id, whole.manifest.files, whole.summary)
    assert [path.name for path in (folder / "workspace/candidates").iterdir()] == [whole.id]
    # As many tasks as there are parts, where nobody says how many; and none where the lists are there already.
    assert len(on_ray(folder, shards=0)._tasks(EVERYONE)) == 4
    assert on_ray(folder).candidates(EVERYONE).id == whole.id
    assert len(made) == 3


def test_a_node_that_is_not_like_the_others_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = orders_of(on_ray(folder), monkeypatch)["1/4"]

    def other(**changed: Any) -> dict[str, Any]:
        return {**order, "shared": json.dumps({**json.loads(order["shared"]), **changed})}

    with pytest.raises(ResourceError, match=r"polars .*; expected 0\.1; install the same"):
        make_shard(other(libraries={"polars": "0.1"}))
    with pytest.raises(ResourceError, match="mount it at the same path on every node"):
        make_shard(other(workspace=str(folder / "elsewhere")))
    shutil.rmtree(folder / "workspace/vectors")
    with pytest.raises(ResourceError, match="the artifact of embed is not there"):
        make_shard(order)
    # What went wrong in a task comes back as plain values.
    assert plainly(make_shard)(order)["exit_code"] == ResourceError.exit_code


def test_ray_is_asked_for_before_anything_is_made(indexed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.stages.over_ray.util.find_spec", lambda _: None)
    with pytest.raises(ResourceError, match=r"Ray is not installed; pip install 'multi-interest-retrieval\[ray\]'"):
        open_run(on_ray(indexed).recipe, tmp_path)
    assert not list(tmp_path.iterdir())
