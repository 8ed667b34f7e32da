"""What is published: numbered, immutable versions, and one pointer to the one that readers take.

    WORKSPACE/published/NAME/versions/000007.json   a version: its artifacts by kind, with the sha256 of their manifests
                            /current.json           the pointer: a number, and the sha256 of the version's file
                            /moves/000012.json      who moved the pointer, from where to where, when and why

The pointer names the hash of the version, the version those of the manifests, a manifest those of its files: whoever begins at the
pointer reads what was published or an error. A version's file appears whole by a link that fails where the number is taken, the
pointer is replaced by a rename; readers take no lock.

Damage to one of these small files stops those who read by it and nobody else: `rollback` to a version by its number, and a publication,
need neither the pointer nor older versions and moves.
"""

import contextlib
import datetime as dt
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from retrieval.core.artifacts import MANIFEST, Artifact, inside, open_artifact, sha256_of
from retrieval.core.durable import make_folder, replace_text, sync_folder, write_durably
from retrieval.core.errors import ConflictError, IntegrityError, UsageError
from retrieval.core.formats import require_schema
from retrieval.core.locks import exclusive, user_name
from retrieval.core.logging import get_logger
from retrieval.core.sealed import BrokenSealError, Sealed, SealedT, read_sealed, sealed_text
from retrieval.core.settings import Settings

SCHEMA_VERSION = 1
_UNKNOWN = -1
log = get_logger("publication")


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
    """One move of the pointer; numbers of versions, 0 for none and for a damaged pointer."""

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


Announce = Callable[[Version, Sequence[Move | None]], None]
"""Is told of a move before it is made here: the version, and all moves with this one, None for damaged ones; an error stops the move."""


def _unheard(_: Version, __: Sequence[Move | None]) -> None:
    """Nobody listens."""


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
            known = ", ".join(str(each) for each in self.numbers()) or "none"
            raise UsageError(f"there is no version {number}", where=self.folder, expected=f"one of {known}")
        return _read(Version, self._file(number))

    def versions(self) -> list[Version]:
        """All versions, the oldest first; whether published or not. Damaged ones are warned about and left out."""
        return list(self._readable(self.numbers()))

    def given(self) -> Iterator[Version]:
        """The versions that readers were given, the latest first, each once. Damaged ones are warned about and left out."""
        return self._readable(self.published())

    def numbers(self) -> list[int]:
        """Of all versions, in order; whether published or not."""
        return sorted(int(path.stem) for path in (self.folder / "versions").glob("[0-9]*.json"))

    def moves(self) -> list[Move]:
        """All moves of the pointer, the oldest first; one that a kill cut off before the pointer moved is not among them, nor a
        damaged one.
        """
        return [move for move in self._moves().values() if move]

    def history(self) -> list[Move | None]:
        """The same by their places, None for a damaged one."""
        found = self._moves()
        return [found.get(place) for place in range(1, 1 + max(found, default=0))]

    def published(self) -> list[int]:
        """The numbers of the versions that readers were given, the latest first, each once."""
        # By both ends of every move: those of a damaged one are told by the moves around it, and by the pointer.
        ends = [self.pointed(), *(number for move in reversed(self.moves()) for number in (move.after, move.before))]
        return [number for number in dict.fromkeys(ends) if number > 0]

    def pointed(self) -> int:
        """The number of the version that the pointer names, whole or not; 0 where there is no pointer, -1 where it is damaged."""
        path = self.folder / "current.json"
        if not path.exists():
            return 0
        try:
            return _read(Pointer, path).version
        except IntegrityError:
            return _UNKNOWN

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Inside the block no other process publishes, rolls back or removes artifacts.

        Raises:
            ConflictError: another process is at it.
        """
        for folder in ("versions", "moves"):
            make_folder(self.folder / folder)
        with exclusive(self.folder / ".lock", f"publication of {self.folder.name}"):
            yield

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

    def publish(
        self,
        date: str,
        artifacts: Mapping[str, Artifact],
        about: Mapping[str, Any],
        *,
        instead_of: int,
        why: str,
        announce: Announce = _unheard,
    ) -> Version:
        """Make a version of these artifacts current.

        instead_of: number of the version that was current when these artifacts were judged, as `pointed` gave it: where another
        one has been published since, the judgement is void. A version of the same date and artifacts, left by a process that was
        killed or rolled back later, is taken again.

        Raises:
            ConflictError: another process publishes, or the current version is another one.
        """
        with self.alone():
            current = self.pointed()
            if current != instead_of:
                raise ConflictError(
                    f"version {max(current, 0)} was published meanwhile",
                    where=self.folder,
                    expected=f"version {instead_of}, which the gates compared with",
                    remedy="run the night again",
                )
            references = {kind: Reference(id=each.id, manifest_sha256=sha256_of(each.path / MANIFEST)) for kind, each in artifacts.items()}
            version = self._same(date, references) or self._add(date, references, about)
            if version.number != instead_of:
                self._move(instead_of, version, why, announce)
        return version

    def earlier(self, number: int = 0) -> Version:
        """The version that a rollback makes current: of this number, or the one that was current before.

        Raises:
            UsageError: nothing is published, or there is no such version. IntegrityError: the version's file, or without a number the
            pointer, is damaged.
        """
        if not self.numbers() or (not number and not self.pointed()):
            raise UsageError("nothing is published", where=self.folder, remedy="run retrieval nightly first")
        return self.version(number or self._before())

    def rollback(self, number: int = 0, *, why: str, announce: Announce = _unheard) -> Version:
        """Make an earlier version current again, by default the one that was current before; its artifacts are checked first.

        A number is enough where the pointer or the version that it names is damaged.

        Raises:
            UsageError: there is no such version, or none before. IntegrityError: an artifact of it is damaged or gone.
            ConflictError: another process publishes.
        """
        self.earlier(number)  # Before a folder is made for a name under which nothing is published.
        with self.alone():
            version = self.earlier(number)
            for kind in version.artifacts:
                self.artifact(version, kind).verify()
            if not self._is_current(version):
                self._move(self.pointed(), version, why, announce)
        return version

    def holds(self, number: int, sha256: str) -> bool:
        """Whether there is a version of this number, with these bytes."""
        file = self._file(number)
        return file.is_file() and sha256_of(file) == sha256

    def text(self, number: int) -> bytes:
        """The bytes of a version's file."""
        return self._file(number).read_bytes()

    def adopt(self, versions: Mapping[int, bytes], moves: Sequence[Move], current: int) -> None:
        """Take over what was published elsewhere: the files of its versions, and its moves, which begin with those made here.

        current: the number of the version that readers take from then on; its artifacts are in the workspace. A version that was never
        current here makes room.

        Raises:
            ConflictError: another process publishes.
        """
        with self.alone():
            for number, text in versions.items():
                replace_text(self._file(number), text.decode())
            here = self.history()
            for place, move in enumerate(moves):
                if place >= len(here) or here[place] is None:
                    replace_text(self._moved(place + 1), sealed_text(move))
            self._point(current)

    def _is_current(self, version: Version) -> bool:
        path = self.folder / "current.json"
        return self.pointed() == version.number and _read(Pointer, path).sha256 == sha256_of(self._file(version.number))

    def _before(self) -> int:
        """The version that was current before the current one was published for the first time."""
        number = self.pointed()
        if number == _UNKNOWN:
            raise IntegrityError("is damaged", where=self.folder / "current.json", expected="a pointer as it was written", remedy=_REMEDY)
        first = next((move for move in self.moves() if move.after == number), None)
        if first is None or not first.before:
            what = f"version {number} is the first one" if first else f"the move to version {number} is damaged"
            raise UsageError(what, where=self.folder, expected="an earlier version", remedy="name another one with --to NUMBER")
        return first.before

    def _readable(self, numbers: Iterable[int]) -> Iterator[Version]:
        # The lifecycle of a bucket removes old ones, which whoever pulled later never had.
        for number in [number for number in numbers if self._file(number).is_file()]:
            try:
                yield self.version(number)
            except IntegrityError as error:
                log.warning("a version is left out", version=number, error=str(error))

    def _moves(self) -> dict[int, Move | None]:
        """By number; None for a damaged one."""
        found = {int(path.stem): _read_move(path) for path in sorted((self.folder / "moves").glob("[0-9]*.json"))}
        last, current = (list(found.values()) or [None])[-1], self.pointed()
        if last and current not in (last.after, _UNKNOWN):
            # A kill cut it off before the pointer moved.
            found.popitem()
        return found

    def _file(self, number: int) -> Path:
        return self.folder / "versions" / f"{number:06d}.json"

    def _same(self, date: str, references: Mapping[str, Reference]) -> Version | None:
        return next((each for each in self.versions() if each.date == date and each.artifacts == references), None)

    def _add(self, date: str, references: dict[str, Reference], about: Mapping[str, Any]) -> Version:
        number = max(self.numbers(), default=0) + 1
        version = Version(number=number, date=date, created=_now(), artifacts=references, about=dict(about))
        self._write(version)
        return version

    def _write(self, version: Version) -> None:
        staged = self.folder / "versions" / f".{version.number:06d}.part"
        write_durably(staged, sealed_text(version))
        _link(staged, self._file(version.number))
        sync_folder(self.folder / "versions")

    def _move(self, before: int, version: Version, why: str, announce: Announce) -> None:
        done = self.history()
        move = Move(before=max(before, 0), after=version.number, at=_now(), who=user_name(), why=why)
        announce(version, (*done, move))
        # Written first, so that no move goes without a record; one whose pointer never moved is written over by the next.
        replace_text(self._moved(len(done) + 1), sealed_text(move))
        self._point(version.number)

    def _moved(self, place: int) -> Path:
        return self.folder / "moves" / f"{place:06d}.json"

    def _point(self, number: int) -> None:
        replace_text(self.folder / "current.json", sealed_text(Pointer(version=number, sha256=sha256_of(self._file(number)))))


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
    require_schema(path, SCHEMA_VERSION)
    try:
        return read_sealed(cls, path)
    except (OSError, ValueError) as error:
        what = f"is damaged: {error}" if isinstance(error, BrokenSealError) else "is damaged"
        raise IntegrityError(what, where=path, expected=f"a {cls.__name__.lower()} as it was written", remedy=_REMEDY) from None


def _read_move(path: Path) -> Move | None:
    try:
        return _read(Move, path)
    except IntegrityError as error:
        log.warning("a move is left out", error=str(error))
        return None


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
