"""One writer at a time, across processes."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from retrieval.core.errors import ConflictError


def lock_of(folder: Path) -> Path:
    """The lock file of a folder: beside it, because the folder is removed while the lock is held."""
    return folder.with_suffix(".lock")


@contextlib.contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path`; the kernel lets go of it when the process dies, however it dies.

    Raises:
        ConflictError: another process holds it.
    """
    with path.open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            stream.seek(0)
            raise ConflictError(
                f"process {stream.read().strip() or '?'} is at it",
                where=what,
                expected="nobody else",
                remedy="wait for it to end, or stop it",
            ) from None
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield
