"""Directories for work in progress, one of a living process each; what the dead left behind is removed."""

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

_SUFFIX = ".part"


@contextlib.contextmanager
def staging_folder(parent: Path, name: str, *, leftovers: str) -> Iterator[Path]:
    """A new directory in `parent` whose name begins with `name`, gone when the block ends unless the block renames it.

    It is locked while its process lives. A killed process leaves an unlocked one: those whose name begins with
    `leftovers` are removed first.

    Raises:
        OSError: the directory cannot be made.
    """
    parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(parent, leftovers)
    unique = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
    folder = parent / f"{name}.{unique}{_SUFFIX}"
    unlocked = parent / f".{unique}.new"
    unlocked.mkdir()
    with _opened(unlocked) as descriptor:
        # Locked before it has a name that others look for.
        _lock(descriptor)
        unlocked.rename(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file that never changes another name; a copy where the file system has no links, such as a mounted share."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _remove_leftovers(parent: Path, prefix: str) -> None:
    for path in [path for path in parent.iterdir() if path.name.startswith(prefix) and path.name.endswith(_SUFFIX)]:
        with contextlib.suppress(OSError), _opened(path) as descriptor:
            if _lock(descriptor):
                shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """False where another process holds the lock, or the file system has none: then nothing is taken for a leftover."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
