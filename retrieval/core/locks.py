"""One writer at a time, across processes; whoever has to wait is told for whom and since when."""

import contextlib
import datetime as dt
import fcntl
import getpass
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from retrieval.core.errors import ConflictError, ResourceError

_TRIES, _PAUSE = 3, 0.02


@dataclass(frozen=True)
class Owner:
    """Who holds a lock: a process of somebody on a machine, and since when (ISO 8601, UTC)."""

    process: int
    user: str
    machine: str
    since: str

    @staticmethod
    def here() -> "Owner":
        """The process that asks, now."""
        return Owner(os.getpid(), user_name(), socket.gethostname(), dt.datetime.now(dt.UTC).isoformat(timespec="seconds"))

    def age_seconds(self) -> float:
        """How long it has been holding."""
        return (dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(self.since)).total_seconds()

    def __str__(self) -> str:
        return f"process {self.process} of {self.user}@{self.machine}, since {self.since}, for {self.age_seconds():.0f} s"


def user_name() -> str:
    """The person or account this process runs as."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container's user id without a name.
        return str(os.getuid())


def lock_of(folder: Path) -> Path:
    """The lock file of a folder: beside it, because the folder is removed while the lock is held."""
    return folder.with_suffix(".lock")


def owner_of(path: Path) -> Owner | None:
    """Who holds the lock file `path` now; None where nobody does. Asks as one who may only read."""
    with contextlib.suppress(FileNotFoundError), path.open(encoding="utf-8") as stream:
        if not _taken(stream, fcntl.LOCK_SH):
            return _owner(stream)
    return None


@contextlib.contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path`; the kernel lets go of it when the process dies, however it dies.

    Raises:
        ConflictError: another process holds it. ResourceError: there are no locks where it lies.
    """
    with path.open("a+", encoding="utf-8") as stream:
        if not _taken_soon(stream):
            raise ConflictError(
                f"{_owner(stream) or 'another process'} is at it",
                where=what,
                expected="nobody else",
                remedy="wait for it to end, or stop it",
            )
        stream.truncate(0)
        stream.write(json.dumps(asdict(Owner.here())))
        stream.flush()
        yield


def _taken_soon(stream: IO[str]) -> bool:
    """Whoever only asks for the owner holds the lock for a moment, too."""
    for _ in range(_TRIES):
        if _taken(stream):
            return True
        time.sleep(_PAUSE)
    return _taken(stream)


def _taken(stream: IO[str], how: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(stream, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise ResourceError(
            f"the file system takes no locks: {error.strerror}", where=stream.name, remedy="put the workspace on one that does"
        ) from None
    return True


def _owner(stream: IO[str]) -> Owner | None:
    stream.seek(0)
    try:
        return Owner(**json.loads(stream.read()))
    except (ValueError, TypeError):
        # It has just been taken, and its owner has not yet written its name.
        return None
