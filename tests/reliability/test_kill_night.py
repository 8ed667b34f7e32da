"""A night that is killed without warning, at any moment, and run again publishes the bytes of one that nobody killed."""

import json
import os
import random
import re
import shutil
import signal
from pathlib import Path

import pytest

from retrieval.core.publication import Publication

KILLS = int(os.environ.get("RETRIEVAL_KILLS", "2"))
NIGHT = ("--date", "2024-01-20")
NEXT = ("--date", "2024-01-21")


@pytest.fixture(scope="module")
def yesterday(command, nightly: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with one published night."""
    workspace = tmp_path_factory.mktemp("yesterday") / "w"
    done = command("nightly", workspace, *NIGHT, of=nightly)
    assert done.returncode == 0, done.stderr
    return workspace


@pytest.fixture(scope="module")
def whole(command, contents, nightly: Path, yesterday: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], dict, int]:
    """The files of a second night that nobody kills, what it published, and how many file operations it takes."""
    workspace = Path(shutil.copytree(yesterday, tmp_path_factory.mktemp("whole") / "w"))
    done = command("nightly", workspace, *NEXT, of=nightly)
    assert done.returncode == 0, done.stderr
    return contents(workspace), published(workspace), int(re.findall(r"file operations: (\d+)", done.stderr)[0])


def published(workspace: Path) -> dict[str, str]:
    """Kind -> id of what is current; manifests tell the time."""
    return {kind: each.id for kind, each in Publication(workspace, "small").current().artifacts.items()}


def without_locks(files: dict[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in files.items() if not name.endswith(".lock")}


@pytest.mark.parametrize("seed", range(KILLS))
def test_a_killed_night_goes_on_to_the_same_publication(
    command, contents, nightly: Path, yesterday: Path, whole: tuple[dict[str, str], dict, int], tmp_path: Path, seed: int
) -> None:
    files, version, operations = whole
    workspace = Path(shutil.copytree(yesterday, tmp_path / "w"))
    # The first half of the operations looks at what is there.
    moment = random.Random(seed).randint(operations // 8, operations)
    killed = command("nightly", workspace, *NEXT, of=nightly, kill_at=moment)
    assert killed.returncode == -signal.SIGKILL
    assert len(published(workspace)) == len(version)
    # What is finished is found: not a byte of it is written again.
    finished = {path: path.stat().st_mtime_ns for path in workspace.glob("*/*/*") if (path.parent / "manifest.json").is_file()}
    parts = {path.stat().st_ino for path in workspace.glob(".staging/candidates-*/part-*/part-*.parquet") if whole_part(path)}
    done = command("nightly", workspace, *NEXT, of=nightly)
    assert done.returncode == 0, done.stderr
    assert without_locks(contents(workspace)) == without_locks(files)
    assert published(workspace) == version
    assert {path for path, written in finished.items() if path.exists() and path.stat().st_mtime_ns != written} == set()
    assert parts <= {path.stat().st_ino for path in workspace.glob("candidates/*/part-*.parquet")}, "a finished part was made again"
    versions = Publication(workspace, "small").versions()
    assert [each.date for each in versions] == ["2024-01-20", "2024-01-21"]
    assert [path for path in workspace.rglob("*.part") if path.is_dir()] == []


def whole_part(path: Path) -> bool:
    return (path.parent / "part.json").is_file()


def test_the_record_of_a_killed_night_says_so(command, nightly: Path, yesterday: Path, whole, tmp_path: Path) -> None:
    workspace = Path(shutil.copytree(yesterday, tmp_path / "w"))
    command("nightly", workspace, *NEXT, of=nightly, kill_at=whole[2] // 2)
    said = json.loads(command("status", workspace, "--json", of=nightly).stdout)
    assert (said["last"]["status"], said["running"], said["published"]["date"]) == ("interrupted", None, "2024-01-20")
    retried = command("retry", workspace, "--json", of=nightly)
    assert json.loads(retried.stdout)["status"] == "published", retried.stderr
