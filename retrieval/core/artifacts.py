"""Artifacts: immutable directories with a manifest, written whole or not at all.

An artifact is built in a staging directory, every file of its plan is hashed and fsynced, the manifest is
written last, and one rename makes it visible: WORKSPACE/<kind>/<id>/manifest.json. A reader asks for a file by
name and gets its path only after the file's sha256 was compared with the manifest, because parquet, safetensors
and FAISS files load with flipped bits without a word.
"""

import contextlib
import datetime as dt
import errno
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any

from retrieval import __version__
from retrieval.core.durable import make_folder, sync_folder, sync_tree, write_durably
from retrieval.core.errors import ConflictError, IntegrityError, ResourceError, UsageError
from retrieval.core.formats import format_of, require_format, require_schema
from retrieval.core.locks import exclusive, lock_of, owner_of
from retrieval.core.removal import remove
from retrieval.core.resources import as_resource_error, measured
from retrieval.core.sealed import BrokenSealError, Sealed, read_sealed, sealed_text
from retrieval.core.secrets import without_secrets
from retrieval.core.settings import Settings, fingerprint
from retrieval.core.staging import staging_folder

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
_STAGING = ".staging"
_AGAIN = "delete the artifact's directory and run again"
_LIBRARIES = ("torch", "numpy", "polars", "pyarrow", "faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs", "numba", "scikit-learn")


class FileRecord(Settings):
    """One file of an artifact."""

    sha256: str
    size: int


class Manifest(Sealed):
    """Everything needed to know what an artifact is, where it came from and whether it is intact."""

    schema_version: int
    kind: str
    format: int = 0
    """Of its kind, as in `FORMATS`; 0: not said."""
    id: str
    settings: dict[str, Any]
    settings_hash: str
    inputs: dict[str, str]
    files: dict[str, FileRecord]
    summary: dict[str, Any]
    code_version: str
    libraries: dict[str, str]
    machine: dict[str, str]
    started_at: str
    seconds: float
    peak_memory_bytes: int
    status: str


class Artifact:
    """A committed artifact. Files are verified against the manifest before their path is given out."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest
        self._verified: set[str] = set()

    @property
    def id(self) -> str:
        return self.manifest.id

    @property
    def kind(self) -> str:
        return self.manifest.kind

    @property
    def summary(self) -> dict[str, Any]:
        return self.manifest.summary

    def file(self, name: str) -> Path:
        """The verified path of a file.

        Raises:
            IntegrityError: the file is not in the manifest, is missing, or its bytes changed.
        """
        record = self.manifest.files.get(name)
        if record is None:
            raise IntegrityError(f"has no file '{name}'", where=self.path, remedy="was it written by another version?")
        path = self.path / inside(name)
        if name not in self._verified:
            _verify(path, record)
            self._verified.add(name)
        return path

    def files(self, prefix: str) -> list[Path]:
        """The verified paths of the files whose name starts with `prefix`, in order of name."""
        return [self.file(name) for name in sorted(self.manifest.files) if name.startswith(prefix)]

    def verify(self) -> None:
        """Check every file. Raises IntegrityError at the first that is missing or changed."""
        for name in self.manifest.files:
            self.file(name)


class StagedArtifact:
    """An artifact being written. `path(name)` promises a file; `summary` goes into the manifest."""

    def __init__(self, folder: Path, scratch: Callable[[], Path] | None = None) -> None:
        self.folder, self._scratch = folder, scratch
        self.summary: dict[str, Any] = {}
        self._plan: list[str] = []

    def path(self, name: str) -> Path:
        """Where to write the file `name`; from now on the artifact is incomplete without it."""
        inside(name)
        if name not in self._plan:
            self._plan.append(name)
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def scratch(self) -> Path:
        """A directory beside it for finished work that outlives the process, gone once the artifact is committed."""
        if self._scratch is None:
            raise TypeError("nothing outlives a part of an artifact but the part itself")
        return self._scratch()

    def records(self) -> dict[str, FileRecord]:
        """Hash and fsync every promised file. Raises IntegrityError when one was not written."""
        missing = [name for name in self._plan if not (self.folder / name).is_file()]
        if missing:
            raise IntegrityError(f"was promised but not written: {missing[0]}", where=self.folder)
        return {name: _record(self.folder / name) for name in sorted(self._plan)}


class Workspace:
    """A directory of artifacts, WORKSPACE/<kind>/<id>/."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, kind: str, artifact_id: str) -> Artifact | None:
        """The committed artifact with this id, or None."""
        path = self._path(kind, artifact_id)
        return open_artifact(path) if (path / MANIFEST).is_file() else None

    def open(self, kind: str, artifact_id: str) -> Artifact:
        """The artifact whose id starts with `artifact_id`.

        Raises:
            UsageError: there is none, or more than one.
        """
        found = [path for path in self.list(kind) if path.name.startswith(artifact_id)]
        if len(found) != 1:
            known = ", ".join(path.name for path in self.list(kind)) or "none"
            raise UsageError(
                f"{len(found)} {kind} artifacts match '{artifact_id}'", where=self.root, expected="one", remedy=f"there are: {known}"
            )
        return open_artifact(found[0])

    def list(self, kind: str) -> list[Path]:
        """The directories of the committed artifacts of a kind, newest last."""
        folder = self.root / kind
        found = folder.iterdir() if folder.is_dir() else ()
        paths = [path for path in found if not path.name.startswith(".") and (path / MANIFEST).is_file()]
        return sorted(paths, key=lambda path: ((path / MANIFEST).stat().st_mtime_ns, path.name))

    @contextlib.contextmanager
    def create(
        self, kind: str, artifact_id: str, *, settings: Mapping[str, Any], inputs: Mapping[str, str], target: Path | None = None
    ) -> Iterator[StagedArtifact]:
        """Stage an artifact; leaving the block commits it, an exception removes every trace of it but its scratch space.

        target: where it goes in place of its own directory of the workspace; on the same file system.

        Two processes may create the same id: ids are functions of settings and inputs, so the first rename wins
        and the second process drops its own copy.

        Raises:
            ResourceError: the workspace cannot be written or the disk is full.
        """
        started = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        _make_folder(self.root / _STAGING, self.root)
        try:
            with staging_folder(self.root / _STAGING, f"{kind}-{artifact_id}", leftovers="") as folder:
                staged = StagedArtifact(folder, partial(self.scratch, kind, artifact_id))
                with measured() as usage:
                    yield staged
                manifest = Manifest(
                    schema_version=SCHEMA_VERSION,
                    kind=kind,
                    format=format_of(kind),
                    id=artifact_id,
                    settings=dict(settings),
                    settings_hash=fingerprint(dict(settings)),
                    inputs=dict(inputs),
                    files=staged.records(),
                    summary=staged.summary,
                    code_version=__version__,
                    libraries=library_versions(),
                    machine={"platform": platform.platform(), "python": platform.python_version(), "processor": platform.machine()},
                    started_at=started,
                    seconds=round(usage.seconds, 3),
                    peak_memory_bytes=usage.peak_memory_bytes,
                    status="complete",
                )
                write_manifest(folder, manifest)
                _commit(folder, target or self._path(kind, artifact_id))
        except BaseException as error:
            resource_error = as_resource_error(error, self.root)
            if resource_error is not None and not isinstance(error, ResourceError):
                raise resource_error from error
            raise

    def remove(self, kind: str, artifact_id: str) -> None:
        """Remove an artifact, if it is there."""
        remove(self._path(kind, artifact_id))

    def scratch(self, kind: str, artifact_id: str) -> Path:
        """A directory for work in progress that outlives the process (checkpoints), made if missing."""
        path = self.root / _STAGING / f"{kind}-{artifact_id}"
        _make_folder(path, self.root)
        return path

    def idle_scratch(self, kind: str, artifact_id: str) -> Path | None:
        """What `scratch` gave, if it is there and no process works in it."""
        path = self.root / _STAGING / f"{kind}-{artifact_id}"
        return path if path.is_dir() and owner_of(lock_of(path)) is None else None

    def drop_scratch(self, kind: str, artifact_id: str) -> None:
        """Remove what `scratch` gave, if it is there and no process works in it."""
        path = self.root / _STAGING / f"{kind}-{artifact_id}"
        # One that began before the artifact was there ends, finds it, and removes this itself.
        with contextlib.suppress(OSError, ConflictError):
            if path.is_dir():
                with exclusive(lock_of(path), "scratch space"):
                    shutil.rmtree(path, ignore_errors=True)

    def drop_staging(self) -> None:
        """Remove the space for work in progress where nothing is in progress: in somebody else's folder nothing is left behind."""
        staging = self.root / _STAGING
        if staging.is_dir() and all(path.suffix == ".lock" for path in staging.iterdir()):
            shutil.rmtree(staging, ignore_errors=True)

    def place(self, kind: str, artifact_id: str) -> Path:
        """Where an artifact lies, or would."""
        return self._path(kind, artifact_id)

    def commit(self, folder: Path, kind: str, artifact_id: str) -> None:
        """Give an artifact that was put together in a folder of this workspace, manifest and all, its place; the first one wins."""
        for path in (each for each in folder.rglob("*") if each.is_file()):
            _record(path)
        _commit(folder, self._path(kind, artifact_id))

    def _path(self, kind: str, artifact_id: str) -> Path:
        if not (kind + artifact_id).replace("-", "").replace("_", "").isalnum():
            raise UsageError(f"'{kind}/{artifact_id}' is not the name of an artifact")
        return self.root / kind / artifact_id


def inside(name: str) -> str:
    """A relative path that stays where it begins. Raises UsageError for any other."""
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise UsageError(f"'{name}' leaves the artifact", expected="a path inside of it")
    return name


def open_artifact(path: Path) -> Artifact:
    """Read a manifest.

    Raises:
        IntegrityError: the manifest is missing or damaged, or another version of this package wrote it.
    """
    require_schema(path / MANIFEST, SCHEMA_VERSION)
    try:
        manifest = read_sealed(Manifest, path / MANIFEST)
    except BrokenSealError as error:
        raise IntegrityError(
            f"is damaged: sha256 {error.found[:12]}", where=path / MANIFEST, expected=error.expected[:12], remedy=_AGAIN
        ) from None
    except (OSError, ValueError) as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else "is damaged"
        raise IntegrityError(f"manifest {reason}", where=path / MANIFEST, expected="the manifest that was written", remedy=_AGAIN) from None
    require_format(manifest.format, manifest.kind, path / MANIFEST)
    return Artifact(path, manifest)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write an artifact's manifest with its seal."""
    write_durably(folder / MANIFEST, sealed_text(manifest))


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write a value as readable JSON; not-a-number is refused, because other readers refuse it too."""
    write_durably(path, json.dumps(without_secrets(value), indent=2, ensure_ascii=False, allow_nan=False))


@cache
def library_versions() -> dict[str, str]:
    """The installed versions of the libraries that decide results."""
    found: dict[str, str] = {}
    for name in _LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _record(path: Path) -> FileRecord:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        os.fsync(stream.fileno())
    return FileRecord(sha256=digest, size=path.stat().st_size)


def is_intact(path: Path, record: FileRecord) -> bool:
    """Whether a file is what its record says."""
    return path.is_file() and sha256_of(path) == record.sha256


def _verify(path: Path, record: FileRecord) -> None:
    if not path.is_file():
        raise IntegrityError("is missing", where=path, remedy=_AGAIN)
    found = sha256_of(path)
    if found != record.sha256:
        raise IntegrityError(
            f"is damaged: {path.stat().st_size} bytes with sha256 {found[:12]}",
            where=path,
            expected=f"{record.size} bytes with sha256 {record.sha256[:12]}",
            remedy=_AGAIN,
        )


def _commit(staging: Path, target: Path) -> None:
    make_folder(target.parent)
    # Before the rename: a file system may keep it through a power cut and forget which names the folder held.
    sync_tree(staging)
    try:
        staging.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not (target / MANIFEST).is_file():
            raise IntegrityError("manifest is missing", where=target, remedy=_AGAIN) from None
    sync_folder(target.parent)


def _make_folder(path: Path, root: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"cannot be written: {error.strerror}", where=root, remedy="choose a --workspace you may write to") from None
