"""Killed without warning at any moment, the same command ends with the same bytes."""

import random
import re
import shutil
import signal
from pathlib import Path

import pytest


def undisturbed(command, contents, verb: str, workspace: Path) -> tuple[dict[str, str], int]:
    """What a run that nobody kills leaves, and how many file operations it takes."""
    done = command(verb, workspace)
    assert done.returncode == 0, done.stderr
    return contents(workspace), int(re.findall(r"file operations: (\d+)", done.stderr)[0])


@pytest.fixture(scope="module")
def trained(command, contents, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], int]:
    workspace = shutil.copytree(prepared, tmp_path_factory.mktemp("trained") / "w")
    return undisturbed(command, contents, "train", workspace)


@pytest.fixture(scope="module")
def whole(command, contents, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], int]:
    return undisturbed(command, contents, "run", tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("seed", [1, 2])
def test_training_goes_on_to_the_same_weights(command, contents, prepared: Path, trained, tmp_path: Path, seed: int) -> None:
    expected, operations = trained
    workspace = shutil.copytree(prepared, tmp_path / "w")
    killed = command("train", workspace, kill_at=random.Random(seed).randint(operations // 4, operations))
    assert killed.returncode == -signal.SIGKILL
    done = command("train", workspace)
    assert done.returncode == 0, done.stderr
    assert contents(workspace) == expected
    assert leftovers(workspace) == []


def test_ten_kills_in_a_row_change_no_byte(command, contents, prepared: Path, trained, tmp_path: Path) -> None:
    expected, operations = trained
    workspace, draw = shutil.copytree(prepared, tmp_path / "w"), random.Random(10)
    for _ in range(10):
        killed = command("train", workspace, kill_at=draw.randint(operations // 20, operations // 4))
        assert killed.returncode == -signal.SIGKILL
    done = command("train", workspace)
    assert done.returncode == 0, done.stderr
    assert contents(workspace) == expected
    assert leftovers(workspace) == []


@pytest.mark.parametrize("seed", [1])
def test_a_run_goes_on_to_the_same_files(command, contents, whole, tmp_path: Path, seed: int) -> None:
    expected, operations = whole
    workspace = tmp_path / "w"
    killed = command("run", workspace, kill_at=random.Random(seed).randint(1, operations))
    assert killed.returncode == -signal.SIGKILL
    assert "error" not in killed.stderr
    done = command("run", workspace)
    assert done.returncode == 0, done.stderr
    assert contents(workspace) == expected
    assert leftovers(workspace) == []


def leftovers(workspace: Path) -> list[Path]:
    """Directories of work in progress."""
    return [path for path in [*workspace.rglob("*.part"), *workspace.rglob("step-*")] if path.is_dir()]
