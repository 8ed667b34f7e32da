"""What is published: numbered, immutable versions, and one pointer to the one that readers take.

    WORKSPACE/published/NAME/versions/000007.json   a version: its artifacts by kind, with the sha256 of their manifests
                            /current.json           the pointer: a number, and the sha256 of the version's file
                            /moves/000012.json      who moved the pointer, from where to where, when and why

The pointer names the hash of the version, the version those of the manifests, a manifest those of its files: whoever begins at the
pointer reads what was published or an error. A version's file appears whole by a link that fails where the number is taken, the
pointer is replaced by a rename; readers take no lock.
"""

import datetime as dt
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrieval.core.artifacts import MANIFEST, Artifact, inside, open_artifact, replace_text, sha256_of, sync_folder, write_durably
from retrieval.core.errors import ConflictError, IntegrityError, UsageError
from retrieval.core.locks import exclusive, user_name
from retrieval.core.sealed import BrokenSealError, Sealed, SealedT, read_sealed, sealed_text
from retrieval.core.settings import Settings

SCHEMA_VERSION = 1


class Reference(Settings):
    """An artifact of the workspace, and which bytes its manifest had when it was published."""

    id: str
    manifest_sha256: str


class Version(Sealed):
    """What was published together; `about` says for which day, how it was judged, and what else is worth knowing of it."""

    schema_version: int = SCHEMA_VERSION
    number: int
    date: str
    created: str
    artifacts: dict[str, Reference]
    about: dict[str, Any]


class Move(Sealed):
    """One move of the pointer; numbers of versions, 0 for none."""

    before: int
    after: int
    at: str
    who: str
    why: str


class Pointer(Sealed):
    """Which version readers take."""

    schema_version: int = SCHEMA_VERSION
    version: int
    sha256: str


class Publication:
    """The versions of one name in a workspace."""

    def __init__(self, root: Path, name: str) -> None:
        self._root, self.folder = root, root / "published" / name
        if Path(name).name != name or name in (".", ".."):
            raise UsageError(f"'{name}' is no name of a publication", expected="a name without slashes", remedy="change the recipe's name")

    def current(self) -> Version | None:
        """The version that readers take now; None before the first one.

        Raises:
            IntegrityError: the pointer or the version's file is damaged.
        """
        path = self.folder / "current.json"
        if not path.exists():
            return None
        pointer = _read(Pointer, path)
        version = self._file(pointer.version)
        if not version.is_file() or sha256_of(version) != pointer.sha256:
            raise IntegrityError("is not what the pointer names", where=version, expected=f"sha256 {pointer.sha256[:12]}", remedy=_REMEDY)
        return _read(Version, version)

    def version(self, number: int) -> Version:
        """The version of this number.

        Raises:
            UsageError: there is none. IntegrityError: its file is damaged.
        """
        if not self._file(number).is_file():
            known = ", ".join(str(each) for each in self._numbers()) or "none"
            raise UsageError(f"there is no version {number}", where=self.folder, expected=f"one of {known}")
        return _read(Version, self._file(number))

    def versions(self) -> list[Version]:
        """All versions, the oldest first; whether published or not."""
        return [self.version(number) for number in self._numbers()]

    def moves(self) -> list[Move]:
        """All moves of the pointer, the oldest first; one that a kill cut off before the pointer moved is not among them."""
        found = [_read(Move, path) for path in sorted((self.folder / "moves").glob("[0-9]*.json"))]
        current = self.current()
        undone = bool(found) and found[-1].after != (current.number if current else 0)
        return found[:-1] if undone else found

    def published(self) -> list[int]:
        """The numbers of the versions that readers were given, the latest first, each once."""
        return list(dict.fromkeys(move.after for move in reversed(self.moves())))

    def artifact(self, version: Version, kind: str) -> Artifact:
        """A version's artifact of a kind, its manifest checked; its files are checked as they are asked for.

        Raises:
            UsageError: the version has none of this kind. IntegrityError: it is damaged or no longer there.
        """
        if kind not in version.artifacts:
            raise UsageError(f"version {version.number} has no {kind}", where=self.folder, expected=", ".join(sorted(version.artifacts)))
        reference = version.artifacts[kind]
        path = self._root / inside(f"{kind}/{reference.id}")
        if not (path / MANIFEST).is_file() or sha256_of(path / MANIFEST) != reference.manifest_sha256:
            raise IntegrityError(
                "is not what was published",
                where=path / MANIFEST,
                expected=f"sha256 {reference.manifest_sha256[:12]}",
                remedy="roll back to another version, or run the night again",
            )
        return open_artifact(path)

    def publish(self, date: str, artifacts: Mapping[str, Artifact], about: Mapping[str, Any], *, instead_of: int, why: str) -> Version:
        """Make a version of these artifacts current.

        instead_of: number of the version that was current when these artifacts were judged, 0 for none: where another one has
        been published since, the judgement is void. A version of the same date and artifacts, left by a process that was killed or
        rolled back later, is taken again.

        Raises:
            ConflictError: another process publishes, or the current version is another one.
        """
        for folder in ("versions", "moves"):
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        with exclusive(self.folder / ".lock", f"publication of {self.folder.name}"):
            current = self.current()
            if (current.number if current else 0) != instead_of:
                raise ConflictError(
                    f"version {current.number if current else 0} was published meanwhile",
                    where=self.folder,
                    expected=f"version {instead_of}, which the gates compared with",
                    remedy="run the night again",
                )
            references = {kind: Reference(id=each.id, manifest_sha256=sha256_of(each.path / MANIFEST)) for kind, each in artifacts.items()}
            version = self._same(date, references) or self._add(date, references, about)
            if version.number != instead_of:
                self._move(instead_of, version.number, why)
        return version

    def rollback(self, number: int = 0, *, why: str) -> Version:
        """Make an earlier version current again, by default the one that was current before; its artifacts are checked first.

        Raises:
            UsageError: there is no such version, or none before. IntegrityError: an artifact of it is damaged or gone.
            ConflictError: another process publishes.
        """
        current = self.current()
        if current is None:
            raise UsageError("nothing is published", where=self.folder, remedy="run retrieval nightly first")
        with exclusive(self.folder / ".lock", f"publication of {self.folder.name}"):
            current = self.current() or current
            version = self.version(number or self._before(current.number))
            for kind in version.artifacts:
                self.artifact(version, kind).verify()
            if version.number != current.number:
                self._move(current.number, version.number, why)
        return version

    def pointer(self, version: Version) -> Pointer:
        """What names a version."""
        return Pointer(version=version.number, sha256=hashlib.sha256(sealed_text(version).encode()).hexdigest())

    def knows(self, pointer: Pointer) -> bool:
        """Whether the version that a pointer names is one of these, byte for byte."""
        file = self._file(pointer.version)
        return file.is_file() and sha256_of(file) == pointer.sha256

    def adopt(self, version: Version, *, why: str) -> None:
        """Make a version current that was made elsewhere; its artifacts are in the workspace.

        Raises:
            ConflictError: another process publishes, or there is another version of this number.
        """
        for folder in ("versions", "moves"):
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        with exclusive(self.folder / ".lock", f"publication of {self.folder.name}"):
            current = self.current()
            if not self.knows(self.pointer(version)):
                self._write(version)
            if current is None or current.number != version.number:
                self._move(current.number if current else 0, version.number, why)

    def _before(self, number: int) -> int:
        """The version that was current before this one was published for the first time."""
        first = next(move for move in self.moves() if move.after == number)
        if not first.before:
            raise UsageError(f"version {number} is the first one", where=self.folder, expected="an earlier version")
        return first.before

    def _numbers(self) -> list[int]:
        return sorted(int(path.stem) for path in (self.folder / "versions").glob("[0-9]*.json"))

    def _file(self, number: int) -> Path:
        return self.folder / "versions" / f"{number:06d}.json"

    def _same(self, date: str, references: Mapping[str, Reference]) -> Version | None:
        return next((each for each in self.versions() if each.date == date and each.artifacts == references), None)

    def _add(self, date: str, references: dict[str, Reference], about: Mapping[str, Any]) -> Version:
        number = max(self._numbers(), default=0) + 1
        version = Version(number=number, date=date, created=_now(), artifacts=references, about=dict(about))
        self._write(version)
        return version

    def _write(self, version: Version) -> None:
        staged = self.folder / "versions" / f".{version.number:06d}.part"
        write_durably(staged, sealed_text(version))
        _link(staged, self._file(version.number))
        sync_folder(self.folder / "versions")

    def _move(self, before: int, after: int, why: str) -> None:
        done = self.moves()
        # Written first, so that no move goes without a record; one whose pointer never moved is written over by the next.
        move = Move(before=before, after=after, at=_now(), who=user_name(), why=why)
        replace_text(self.folder / "moves" / f"{len(done) + 1:06d}.json", sealed_text(move))
        pointer = Pointer(version=after, sha256=sha256_of(self._file(after)))
        replace_text(self.folder / "current.json", sealed_text(pointer))


_REMEDY = "roll back to another version with retrieval rollback RECIPE --to NUMBER"


def _link(staged: Path, target: Path) -> None:
    """Give a file its name, unless something has it."""
    try:
        # A link and no rename: it fails where the name is taken, even on a file system whose locks nobody sees.
        os.link(staged, target)
    except FileExistsError:
        raise ConflictError("was published meanwhile", where=target, remedy="run the night again") from None
    except OSError:
        # A file system without links, such as a mounted share.
        staged.replace(target)
    staged.unlink(missing_ok=True)


def _read(cls: type[SealedT], path: Path) -> SealedT:
    try:
        found = read_sealed(cls, path)
    except (OSError, ValueError) as error:
        what = f"is damaged: {error}" if isinstance(error, BrokenSealError) else "is damaged"
        raise IntegrityError(what, where=path, expected=f"a {cls.__name__.lower()} as it was written", remedy=_REMEDY) from None
    schema = getattr(found, "schema_version", SCHEMA_VERSION)
    if schema != SCHEMA_VERSION:
        raise IntegrityError(f"schema version {schema}", where=path, expected=str(SCHEMA_VERSION))
    return found


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
