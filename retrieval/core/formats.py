"""Versions of what is written: whoever reads the file of another version is told so, and not that it is damaged."""

import contextlib
import json
from pathlib import Path

from retrieval.core.errors import IntegrityError
from retrieval.core.sealed import holds

FORMATS = {
    "inputs": 1,
    "dataset": 3,
    "model": 1,
    "vectors": 1,
    "export": 1,
    "index": 2,
    "rescorer": 2,
    "calibration": 1,
    "candidates": 1,
    "measurements": 3,
    "folds": 1,
    "report": 1,
}
"""Of each kind of artifact; raised when the bytes a stage writes for the same settings change, so that old ones are not taken for new."""
ANOTHER_VERSION = "another version of this package wrote it: read it with that one, or delete it and run again"


def format_of(kind: str) -> int:
    """The format in which this version writes and reads a kind of artifact."""
    return FORMATS.get(kind, 1)


def require_format(found: int, kind: str, where: Path) -> None:
    """Raise IntegrityError where an artifact has another format than this version reads; 0 is one that does not say."""
    if found not in (0, format_of(kind)):
        raise IntegrityError(f"{kind} of format {found}", where=where, expected=f"format {format_of(kind)}", remedy=ANOTHER_VERSION)


def require_schema(path: Path, expected: int) -> None:
    """Raise IntegrityError where a JSON file says that it has another schema; what else is wrong with it, such as a broken seal, is left
    to whoever parses it.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):
        text = path.read_text(encoding="utf-8")
        values = json.loads(text)
        found = values.get("schema_version")
        if isinstance(found, int) and found != expected and holds(text, values.get("seal", "")):
            raise IntegrityError(f"schema version {found}", where=path, expected=f"schema version {expected}", remedy=ANOTHER_VERSION)
