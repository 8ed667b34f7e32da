"""Killed at every operation on files, one after the other: train, build-index, recall. In full by benchmarks/reliability.py."""

import os
import re
import shutil
import signal
from pathlib import Path

import pytest

STRIDE = int(os.environ.get("RETRIEVAL_MOMENTS", "0"))
"""Every n-th operation is a moment to die; 0: one in the middle of each verb."""
BEFORE = {"train": "prepare", "build-index": "embed", "recall": "build-index"}
VALUES = ("train.steps=10", "index.factory=IVF4,Flat", "index.min_recall=0.0", "recall.batch_users=16")
SETTINGS = tuple(word for value in VALUES for word in ("--set", value))


@pytest.mark.parametrize("verb", list(BEFORE))
def test_killed_at_every_operation_a_verb_ends_with_the_same_bytes(command, contents, tmp_path: Path, verb: str) -> None:
    ready = tmp_path / "ready"
    assert command(BEFORE[verb], ready, *SETTINGS).returncode == 0
    whole = Path(shutil.copytree(ready, tmp_path / "whole"))
    done = command(verb, whole, *SETTINGS)
    assert done.returncode == 0, done.stderr
    expected, operations = contents(whole), int(re.findall(r"file operations: (\d+)", done.stderr)[0])
    moments = range(1, operations + 1, STRIDE) if STRIDE else [operations * 3 // 4]
    for moment in moments:
        workspace = Path(shutil.copytree(ready, tmp_path / "w"))
        killed = command(verb, workspace, *SETTINGS, kill_at=moment)
        assert killed.returncode == -signal.SIGKILL, moment
        done = command(verb, workspace, *SETTINGS)
        assert done.returncode == 0, (moment, done.stderr)
        assert contents(workspace) == expected, moment
        assert [path for path in [*workspace.rglob("*.part"), *workspace.rglob("step-*")] if path.is_dir()] == [], moment
        shutil.rmtree(workspace)
    print(f"{verb}: {len(moments)} kills, of {operations} operations on files; the same bytes after each")
