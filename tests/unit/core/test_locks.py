"""A lock is held by one process, and dies with it."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from retrieval.core.errors import ConflictError
from retrieval.core.locks import exclusive, owner_of

HOLDER = """
import pathlib, sys, time
from retrieval.core.locks import exclusive
with exclusive(pathlib.Path(sys.argv[1]), "x"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_holder_is_told_who_the_first_is(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with (
        exclusive(path, "training"),
        pytest.raises(ConflictError, match=rf"training: process {os.getpid()} of \S+@\S+, since \S+, for \d+ s is at it"),
        exclusive(path, "training"),
    ):
        pass
    with exclusive(path, "training"):
        assert owner_of(path).process == os.getpid()


def test_who_may_only_read_is_told_the_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An account that watches has no need to write; two who ask at once are no owners to one another."""
    path, opened = tmp_path / "lock", Path.open

    def reading(path: Path, mode: str = "r", **named: str):
        if set(mode) & set("wa+"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, mode, **named)

    with exclusive(path, "training"), monkeypatch.context() as patch:
        patch.setattr(Path, "open", reading)
        assert owner_of(path).process == os.getpid()
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert owner_of(path) is None


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ConflictError, match=str(holder.pid)), exclusive(path, "training"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait(10)
    holder.stdout.close()
    time.sleep(0.05)
    with exclusive(path, "training"):
        assert owner_of(path).process == os.getpid()


def test_nobody_holds_what_was_let_go(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert owner_of(path) is None
    with exclusive(path, "training"):
        assert owner_of(path).age_seconds() < 60
    assert owner_of(path) is None
