"""Removing what others look for: out of sight first, because a directory that is half removed must not be found."""

import contextlib
import shutil
import uuid
from pathlib import Path

_GONE = ".gone"


def remove(path: Path) -> None:
    """Remove an artifact, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(put_away(path), ignore_errors=True)


def put_away(path: Path) -> Path:
    """Rename an artifact, so that nobody finds it any more; what it is called now is to be removed.

    Raises:
        OSError: it cannot be renamed.
    """
    return path.rename(path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{_GONE}"))


def half_removed(root: Path) -> list[Path]:
    """What was put away in a workspace and not removed, because its process was killed."""
    return sorted(root.glob(f"[!.]*/.*{_GONE}"))


def size_of(folder: Path) -> int:
    """The bytes of all files in it, as far as they are there: another process may be removing it."""
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size if file.is_file() else 0
    return total
