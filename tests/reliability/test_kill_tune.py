"""A search that is killed without warning at any moment goes on to the same trials, the same model and the same recipe."""

import json
import random
import re
import signal
from pathlib import Path

import pytest

pytest.importorskip("optuna", reason="the extra `tune` is not installed")
SEARCH = """
[search]
method = "successive-halving"
trials = 4
rungs = 2
reduction = 2
[space]
train.optimizer.learning_rate = { low = 1e-4, high = 1e-1, log = true }
"model.interests" = { low = 1, high = 3 }
"""


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("search") / "s.toml"
    path.write_text(SEARCH, encoding="utf-8")
    return path


def without_times(found: dict[str, str], workspace: Path) -> tuple[dict[str, str], list[dict]]:
    """The files but the record, and the record but its seconds."""
    record = json.loads((workspace / "tune/small/trials.json").read_text())["trials"]
    trials = [{**trial, "results": [{**each, "seconds": 0} for each in trial["results"]]} for trial in record]
    return {name: digest for name, digest in found.items() if name != "tune/small/trials.json" and not name.endswith(".lock")}, trials


@pytest.fixture(scope="module")
def whole(command, contents, search: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[dict[str, str], list[dict]], int]:
    workspace = tmp_path_factory.mktemp("whole")
    done = command("tune", workspace, "--space", str(search))
    assert done.returncode == 0, done.stderr
    return without_times(contents(workspace), workspace), int(re.findall(r"file operations: (\d+)", done.stderr)[0])


@pytest.mark.parametrize("seed", [1])
def test_a_search_goes_on_to_the_same_end(command, contents, search: Path, whole, tmp_path: Path, seed: int) -> None:
    expected, operations = whole
    killed = command("tune", tmp_path, "--space", str(search), kill_at=random.Random(seed).randint(operations // 4, operations))
    assert killed.returncode == -signal.SIGKILL
    done = command("tune", tmp_path, "--space", str(search))
    assert done.returncode == 0, done.stderr
    assert without_times(contents(tmp_path), tmp_path) == expected
    assert [path for path in [*tmp_path.rglob("*.part"), *tmp_path.rglob("step-*")] if path.exists()] == []
