"""Parts of an artifact in the making that outlive their process: whoever comes back finds them and goes on."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from retrieval import __version__
from retrieval.core.artifacts import FileRecord, StagedArtifact, is_intact, library_versions
from retrieval.core.durable import write_durably
from retrieval.core.locks import exclusive, lock_of
from retrieval.core.logging import get_logger
from retrieval.core.resources import as_resource_error
from retrieval.core.sealed import Sealed, read_sealed, sealed_text

_RECORD, _MAKERS = "part.json", "made-by.json"
log = get_logger("parts")


class PartRecord(Sealed):
    """The files of a finished part, and what its writer said about it."""

    files: dict[str, FileRecord]
    summary: dict[str, Any]


class ResumableParts:
    """The parts of one artifact in a scratch directory; a part is there whole, with its record, or not at all."""

    def __init__(self, scratch: Path, staged: StagedArtifact) -> None:
        self._scratch, self._staged = scratch, staged

    def has(self, name: str) -> bool:
        """Whether an earlier process left the part whole."""
        return _found(self._scratch / name) is not None

    def ensure(self, name: str, write: Callable[[StagedArtifact], None], named: Callable[[str], str] = str) -> dict[str, Any]:
        """Put a part into the artifact, written now or found intact from an earlier process; its summary.

        `name` is the part's directory in the scratch space; `named` gives the names in the artifact of the files that `write` names.

        Raises:
            ResourceError: the disk is full or may not be written.
        """
        folder = self._scratch / name
        try:
            record = _found(folder) or _written(folder, write)
            for file in record.files:
                _adopt(folder / file, self._staged.path(named(file)))
        except OSError as error:
            raise as_resource_error(error, folder) or error from error
        return record.summary


def write_part(scratch: Path, name: str, write: Callable[[StagedArtifact], None]) -> dict[str, Any]:
    """Write a part for whoever puts the artifact together, unless it is there whole; its summary.

    Raises:
        ConflictError: another process writes it. ResourceError: the disk is full or may not be written.
    """
    folder = scratch / name
    try:
        with exclusive(lock_of(folder), f"part {name}"):
            return (_found(folder) or _written(folder, write)).summary
    except OSError as error:
        raise as_resource_error(error, folder) or error from error


@contextlib.contextmanager
def resumable_parts(staged: StagedArtifact, what: str) -> Iterator[ResumableParts]:
    """The parts of an artifact that is being written, for this process alone.

    Raises:
        ConflictError: another process writes the same artifact.
    """
    with own_scratch(staged, what) as scratch:
        yield ResumableParts(scratch, staged)


@contextlib.contextmanager
def own_scratch(staged: StagedArtifact, what: str) -> Iterator[Path]:
    """The scratch directory of an artifact that is being written, for this process alone.

    Raises:
        ConflictError: another process writes the same artifact.
    """
    scratch = staged.scratch()
    with alone_in(scratch, what):
        yield scratch


@contextlib.contextmanager
def alone_in(scratch: Path, what: str) -> Iterator[None]:
    """A scratch directory for this process alone, made if missing.

    What other versions of the libraries that decide results left there goes: an artifact that was begun by one and ended by another
    would be no function of its settings, and its manifest would name the last one only.

    Raises:
        ConflictError: another process works in it.
    """
    with exclusive(lock_of(scratch), what):
        _keep_own(scratch)
        yield


def _keep_own(scratch: Path) -> None:
    makers, own = scratch / _MAKERS, json.dumps({"retrieval": __version__, **library_versions()})
    before = makers.read_text(encoding="utf-8") if makers.is_file() else ""
    if before == own:
        return
    # Who held the lock before may have removed it.
    if scratch.is_dir() and any(scratch.iterdir()):
        log.warning("begins anew: other versions began it", where=str(scratch), before=before, now=own)
        shutil.rmtree(scratch)
    scratch.mkdir(parents=True, exist_ok=True)
    write_durably(makers, own)


def _found(folder: Path) -> PartRecord | None:
    """The record of a part whose files are what it says; a damaged part is written again."""
    try:
        record = read_sealed(PartRecord, folder / _RECORD)
    except (OSError, ValueError):
        return None
    return record if all(is_intact(folder / name, file) for name, file in record.files.items()) else None


def _written(folder: Path, write: Callable[[StagedArtifact], None]) -> PartRecord:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    part = StagedArtifact(folder)
    write(part)
    record = PartRecord(files=part.records(), summary=part.summary)
    write_durably(folder / _RECORD, sealed_text(record))
    return record


def _adopt(source: Path, target: Path) -> None:
    """The same file under a second name: taken away here, a process killed before the commit would have lost it."""
    try:
        os.link(source, target)
    except OSError:
        # A file system without links, such as a mounted share.
        shutil.copyfile(source, target)
