"""Killed while lists are made, vectors exported or an index built, the same command ends with the same bytes."""

import random
import re
import shutil
import signal
from pathlib import Path

import pytest

SETTINGS = ("--set", "recall.batch_users=16")


@pytest.mark.parametrize("verb", ["recall", "embed", "build-index"])
def test_the_same_command_ends_with_the_same_bytes(command, contents, indexed: Path, tmp_path: Path, verb: str) -> None:
    def options(workspace: Path) -> tuple[str, ...]:
        further = {"embed": ("--export", str(workspace / "exported")), "build-index": ("--set", "index.factory=IVF8,SQ8")}
        return (*SETTINGS, *further.get(verb, ()))

    whole = Path(shutil.copytree(indexed, tmp_path / "whole"))
    done = command(verb, whole, *options(whole))
    assert done.returncode == 0, done.stderr
    operations = int(re.findall(r"file operations: (\d+)", done.stderr)[0])
    workspace = Path(shutil.copytree(indexed, tmp_path / "w"))
    for seed in (1, 2):
        killed = command(verb, workspace, *options(workspace), kill_at=random.Random(seed).randint(operations // 2, operations))
        assert killed.returncode == -signal.SIGKILL
    done = command(verb, workspace, *options(workspace))
    assert done.returncode == 0, done.stderr
    assert contents(workspace) == contents(whole)
    assert [path for path in workspace.rglob("*.part") if path.is_dir()] == []
