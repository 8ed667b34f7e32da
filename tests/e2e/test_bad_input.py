"""Whatever is wrong, a person gets one line and a script gets the right exit code."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).parents[2]


def copy_of(workspace: Path, target: Path) -> Path:
    shutil.copytree(workspace, target, dirs_exist_ok=True)
    return target


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.stepz=5", "did you mean 'steps'"),
        ("model.name=comirec-sb", "comirec-sa"),
        ("train.steps=0", "greater than or equal to 1"),
        ("recall.n=10", "cutoffs reach 50"),
        ("data.interactions.user=user_idd", "user_id"),
        ("model.interests=many", "integer"),
    ],
)
def test_a_wrong_setting_is_a_usage_error(retrieval, recipe: Path, tmp_path: Path, override: str, words: str) -> None:
    done = retrieval("prepare", recipe, "--workspace", tmp_path, "--set", override)
    assert done.code == 2
    assert words in done.error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "pipelines/nothing.toml"], "no such file"),
        (["runn"], "Did you mean 'run'"),
        (["run", "--nothing"], "--nothing"),
        (["run"], "recipe"),
        (["run", "pipelines/sample.toml", "--workspace"], "--workspace"),
        (["explain", "pipelines/sample.toml", "--user", "1", "--top", "0"], "--top"),
        (["inspect", "."], "no such artifact"),
        (["evaluate"], "RECIPE"),
        (["evaluate", "pipelines/sample.toml", "--candidates", "a", "--truth", "b"], "RECIPE"),
        (["evaluate", "pipelines/sample.toml", "--split", "valid"], "--split"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(retrieval, arguments: list[str], words: str) -> None:
    done = retrieval(*arguments)
    assert done.code == 2
    assert words in done.error
    assert done.out == ""


def changed_log(small_log: Path, folder: Path, change) -> Path:
    events = pl.read_parquet(small_log / "interactions").sort("user_id", "timestamp", maintain_order=True)
    path = folder / "events.parquet"
    change(events).write_parquet(path)
    return path


def run_on(retrieval, recipe: Path, log: Path, workspace: Path, verb: str = "run", *more: str):
    return retrieval(verb, recipe, "--workspace", workspace, "--json", "--set", f"data.interactions.path={log}", *more)


def test_an_empty_log(retrieval, recipe: Path, small_log: Path, tmp_path: Path) -> None:
    done = run_on(retrieval, recipe, changed_log(small_log, tmp_path, lambda events: events.head(0)), tmp_path / "w")
    assert done.code == 3
    assert "empty" in done.error


def test_one_user(retrieval, recipe: Path, small_log: Path, tmp_path: Path) -> None:
    log = changed_log(small_log, tmp_path, lambda events: events.filter(pl.col("user_id") == events["user_id"][0]))
    done = run_on(retrieval, recipe, log, tmp_path / "w")
    assert done.code == 3
    assert done.error


def test_users_with_one_event(retrieval, recipe: Path, small_log: Path, tmp_path: Path) -> None:
    log = changed_log(small_log, tmp_path, lambda events: events.unique("user_id", keep="first", maintain_order=True))
    assert run_on(retrieval, recipe, log, tmp_path / "w").code == 3
    mixed = changed_log(
        small_log,
        tmp_path,
        lambda events: pl.concat([events.filter(pl.col("user_id") % 2 == 0), events.filter(pl.col("user_id") % 2 == 1).unique("user_id")]),
    )
    done = run_on(retrieval, recipe, mixed, tmp_path / "w")
    assert done.code == 0, done.err


@pytest.mark.parametrize("text", [b"", b"PAR1 this is no parquet PAR1", b"\x00" * 100])
def test_malformed_parquet(retrieval, recipe: Path, tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "events.parquet"
    path.write_bytes(text)
    done = run_on(retrieval, recipe, path, tmp_path / "w")
    assert done.code == 3
    assert "events.parquet" in done.error


def test_truncated_parquet(retrieval, recipe: Path, small_log: Path, tmp_path: Path) -> None:
    path = changed_log(small_log, tmp_path, lambda events: events)
    path.write_bytes(path.read_bytes()[:-40])
    done = run_on(retrieval, recipe, path, tmp_path / "w")
    assert done.code == 3
    assert done.error


def test_more_bad_rows_than_allowed_stop_the_run(retrieval, recipe: Path, small_log: Path, tmp_path: Path) -> None:
    def spoil(events: pl.DataFrame) -> pl.DataFrame:
        return events.with_columns(user_id=pl.when(pl.int_range(pl.len()) % 10 == 0).then(None).otherwise("user_id"))

    done = run_on(retrieval, recipe, changed_log(small_log, tmp_path, spoil), tmp_path / "w", "prepare")
    assert done.code == 3
    assert not list((tmp_path / "w").glob("dataset/*"))


def test_ids_near_the_largest_integer_and_strange_strings(retrieval, recipe: Path, small_log: Path, tmp_path: Path) -> None:
    large = changed_log(small_log, tmp_path, lambda events: events.with_columns(user_id=2**63 - 1 - pl.col("user_id").cast(pl.Int64)))
    done = run_on(retrieval, recipe, large, tmp_path / "w", "recall", "--held-out")
    assert done.code == 0, done.err
    assert pl.read_parquet(f"{done.json['path']}/part-*.parquet")["user_id"].min() > 2**62
    strange = changed_log(small_log, tmp_path, lambda events: events.with_columns(user_id=pl.format('O\'Neil, "{}" <b>ß漢</b>', "user_id")))
    done = run_on(retrieval, recipe, strange, tmp_path / "w")
    assert done.code == 0, done.err
    page = Path(done.json["report"]).read_text(encoding="utf-8")
    assert "<b>ß漢</b>" not in page


def test_more_interests_than_events_and_a_catalog_smaller_than_the_list(retrieval, recipe: Path, small_log: Path, tmp_path: Path) -> None:
    few = sorted(pl.read_parquet(small_log / "interactions")["item_id"].value_counts(sort=True)["item_id"][:30])
    log = changed_log(small_log, tmp_path, lambda events: events.filter(pl.col("item_id").is_in(few)))
    done = run_on(retrieval, recipe, log, tmp_path / "w", "run", "--set", "model.interests=12", "--set", "model.history=5")
    assert done.code == 0, done.err
    lists = pl.read_parquet(f"{done.json['artifacts']['candidates']['path']}/part-*.parquet")
    assert lists["rank"].max() <= 30


@pytest.mark.parametrize("kind", ["dataset", "model", "vectors", "index", "candidates", "measurements"])
@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_a_damaged_artifact_is_refused(retrieval, recipe: Path, workspace: Path, tmp_path: Path, kind: str, damage: str) -> None:
    other = copy_of(workspace, tmp_path / "w")
    names = {"dataset": "items.npy", "model": "model.safetensors", "vectors": "items.npy", "index": "index.faiss"}
    for folder in (other / kind).iterdir():
        path = folder / names.get(kind, "part-00000.parquet" if kind == "candidates" else "per_user.parquet")
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(bytes(data if damage == "flip" else data[:-7]))
    # Lists that are there already would hide the damage of what they were made from.
    more = [] if kind in ("candidates", "measurements") else ["--set", "recall.lambda=0.7"]
    done = retrieval("run", recipe, "--workspace", other, *more)
    assert done.code == 4
    assert "is damaged" in done.error


def test_an_index_of_another_model_is_refused(retrieval, recipe: Path, workspace: Path) -> None:
    other = retrieval("build-index", recipe, "--workspace", workspace, "--json", "--set", "seed=2").json
    done = retrieval("recall", recipe, "--workspace", workspace, "--index", other["id"])
    assert done.code == 4
    assert "was built for model_id" in done.error


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_workspace(retrieval, recipe: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert retrieval("run", recipe, "--workspace", tmp_path / "w").code == 6


def test_a_workspace_that_is_a_file(retrieval, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "w").write_text("")
    done = retrieval("run", recipe, "--workspace", tmp_path / "w")
    assert done.code == 6
    assert "--workspace" in done.error


def test_an_unknown_user(retrieval, recipe: Path, workspace: Path) -> None:
    done = retrieval("explain", recipe, "--user", "nobody", "--workspace", workspace)
    assert done.code == 3
    assert "nobody" in done.error


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_training_writes_a_checkpoint_and_the_next_run_goes_on(
    retrieval, recipe: Path, workspace: Path, tmp_path: Path, number: int
) -> None:
    command = [sys.executable, "-m", "retrieval", "--log-json", "train", str(recipe), "--workspace", str(tmp_path), "--json"]
    longer = ["--set", "train.steps=150", "--set", "train.patience=0"]
    process = subprocess.Popen([*command, *longer], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".staging/model-*/step-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number, err
    assert "checkpoint written" in err
    done = retrieval("train", recipe, "--workspace", tmp_path, "--json", *longer)
    assert done.code == 0
    assert "resumed" in done.err
    whole = retrieval("train", recipe, "--workspace", tmp_path / "other", "--json", *longer)
    files = [(Path(each.json["path"]) / "model.safetensors").read_bytes() for each in (done, whole)]
    assert files[0] == files[1]
