"""What is published, shared by machines through an s3-compatible store: it has the pointer, workspaces follow.

    PREFIX/published/NAME/current.json                    the pointer, and every move that led to it
                         /versions/000007.SHA256.json     a version; two machines may have made one of the same number
          /KIND/ID/SHA256/...                             an artifact, by the hash of its manifest: two may have made it, at other times

A file beside others appears by a rename; an object has none, but it is put whole or not at all. Nothing but the pointer is ever another
thing under the same name, so files go first, the manifest after them, the version, and last the pointer: put only if it is still the
one that was read (If-Match, or If-None-Match where there was none). Of two publishers one is told that it lost, before anything moved in
its workspace.
"""

import contextlib
import hashlib
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from retrieval.core.artifacts import (
    MANIFEST,
    Artifact,
    FileRecord,
    Manifest,
    Workspace,
    inside,
    is_intact,
    open_artifact,
    sha256_of,
)
from retrieval.core.errors import ConflictError, IntegrityError, UsageError
from retrieval.core.logging import get_logger
from retrieval.core.objects import ObjectStore
from retrieval.core.publication import SCHEMA_VERSION, Move, Pointer, Publication, Reference, Version
from retrieval.core.removal import remove
from retrieval.core.resources import require_free_space
from retrieval.core.sealed import parse_sealed, sealed_text
from retrieval.core.staging import link_or_copy, staging_folder

log = get_logger("publication")
_LANES = 8
_AGAIN = "remove it there and push it again from where it was made"
_LOST = Move(before=0, after=0, at="", who="", why="damaged where it was made")
_MOVED = "pull, and judge against what is published there"


class Ledger(Pointer):
    """The pointer of a store. `versions`: number -> sha256 of every version that was current once; `moves`: all, the oldest first."""

    versions: dict[int, str]
    moves: tuple[Move, ...]


class SharedPublication:
    """The versions of one name, in a store and in a workspace that follows it."""

    def __init__(self, store: ObjectStore, root: Path, name: str) -> None:
        self.store, self.local, self._workspace = store, Publication(root, name), Workspace(root)
        self._folder = f"published/{name}"
        self._there: Ledger | None = None
        self._tag: str | None = None

    def sync(self, *, artifacts: bool = True) -> None:
        """Take what was published there since, or give what was published here without it.

        artifacts: those of what is current there, too; a rollback can do without where they are damaged.

        Raises:
            ConflictError: both went on. IntegrityError: an object is damaged or missing; what is published here stays. ResourceError:
            the store does not answer.
        """
        stands = self._look()
        if stands == "behind":
            self._take(artifacts=artifacts)
        elif stands == "ahead":
            try:
                self._give()
            except IntegrityError as error:
                # What comes next may be the way out: a rollback, or a publication.
                log.warning("what is published here cannot be given to the store", error=str(error))

    def ahead(self) -> int:
        """The number of the version that `sync` would take, 0 for none. Raises as `sync`."""
        return self._there.version if self._look() == "behind" and self._there else 0

    def pull(self) -> Version:
        """Make what the store publishes current here; what of it is here already is checked, and mended where it is damaged.

        Raises:
            UsageError: nothing is published there. Else as `sync`.
        """
        stands = self._look()
        if self._there is None:
            raise UsageError("nothing is published", where=f"{self.store.url}/{self._folder}", remedy="run retrieval push first")
        if stands == "behind":
            self._take()
        else:
            self.fetch(self._version(self._there))
        return self._version(self._there)

    def push(self) -> Version:
        """Make what is published here current there; what is there is not sent again.

        Raises:
            UsageError: nothing is published here. Else as `sync`, and ConflictError where another machine published.
        """
        stands, version = self._look(), self.local.current()
        if version is None:
            raise UsageError("nothing is published", where=self.local.folder, remedy="run retrieval nightly first")
        if stands == "behind":
            raise ConflictError("another machine published meanwhile", where=self.store.url, remedy=_MOVED)
        self._give()
        return version

    def send(self, artifacts: Collection[Artifact]) -> None:
        """Put artifacts there, which nobody sees before a version names them."""
        for artifact in artifacts:
            _send(self.store, artifact)

    def fetch(self, version: Version, kinds: Collection[str] = ()) -> None:
        """Bring a version's artifacts, or those of some kinds, into the workspace; every byte is checked before any of it can be read.

        Raises:
            IntegrityError: an object is damaged or missing.
        """
        for kind, reference in version.artifacts.items():
            if not kinds or kind in kinds:
                self._fetch(kind, reference)

    def announce(self, version: Version, moves: Sequence[Move | None]) -> None:
        """Move the pointer there, with these moves behind it; of a damaged one only its place is known.

        Raises:
            ConflictError: it is no longer the one that was looked at.
        """
        known = tuple(_plain(move or _LOST) for move in moves)
        versions = self._put_versions(version.number, known)
        ledger = Ledger(version=version.number, sha256=versions[version.number], versions=versions, moves=known)
        text, name = sealed_text(ledger).encode(), f"{self._folder}/current.json"
        # An answer may get lost: whoever asks again is told that the pointer is another one, and it is his own.
        if not self.store.put(name, text, self._tag) and (self.store.read(name) or (b"", ""))[0] != text:
            raise ConflictError("another machine published meanwhile", where=self.store.url, remedy=_MOVED)

    def _look(self) -> Literal["same", "behind", "ahead"]:
        """How the moves here stand to those there. Raises ConflictError where neither goes on from the other."""
        name = f"{self._folder}/current.json"
        found = self.store.read(name)
        self._there, self._tag = None, None
        if found is not None:
            with _intact(f"{self.store.url}/{name}"):
                self._there, self._tag = parse_sealed(Ledger, found[0]), found[1]
            _require_schema(self._there, f"{self.store.url}/{name}")
        here, there = self.local.history(), self._there.moves if self._there else ()
        if any(mine and _plain(mine) != theirs for mine, theirs in zip(here, there, strict=False)):
            raise ConflictError(
                f"what was published in {self.local.folder} does not go on from what is published there",
                where=self.store.url,
                expected="one history",
                remedy=f"publish from one of the two: take {self.local.folder} away, and pull",
            )
        if len(here) > len(there):
            return "ahead"
        return "behind" if len(here) < len(there) or None in here or self._is_damaged() else "same"

    def _is_damaged(self) -> bool:
        """Whether readers can take nothing here."""
        try:
            return self.local.current() is None and self._there is not None
        except IntegrityError:
            return True

    def _take(self, *, artifacts: bool = True) -> None:
        there = self._there
        if there is None:
            return
        version = self._version(there)
        if artifacts:
            self.fetch(version)
        missing = [number for number, sha256 in there.versions.items() if not self.local.holds(number, sha256)]
        with ThreadPoolExecutor(_LANES) as lanes:
            texts = dict(zip(missing, lanes.map(lambda number: self._text(number, there.versions[number]), missing), strict=True))
        # The bucket's lifecycle may have removed old ones.
        self.local.adopt({number: text for number, text in texts.items() if text is not None}, there.moves, there.version)

    def _give(self) -> None:
        version = self.local.current()
        if version is not None:
            self.send([self.local.artifact(version, kind) for kind in version.artifacts])
            self.announce(version, self.local.history())
            self._look()

    def _put_versions(self, current: int, moves: Sequence[Move]) -> dict[int, str]:
        """Number -> sha256 of all that were current once; those that are not there yet are put, and the one that is current now."""
        versions = dict(self._there.versions) if self._there else {}
        for number in {move.after for move in moves} & set(self.local.numbers()):
            if number == current or number not in versions:
                text = self.local.text(number)
                versions[number] = hashlib.sha256(text).hexdigest()
                self.store.put(self._named(number, versions[number]), text, None)
        return dict(sorted(versions.items()))

    def _named(self, number: int, sha256: str) -> str:
        return f"{self._folder}/versions/{number:06d}.{sha256[:16]}.json"

    def _version(self, there: Ledger) -> Version:
        """The one that is current there."""
        name = f"{self.store.url}/{self._named(there.version, there.sha256)}"
        text = self._text(there.version, there.sha256)
        if text is None:
            raise IntegrityError("is missing", where=name, remedy=_AGAIN)
        with _intact(name):
            return parse_sealed(Version, text)

    def _text(self, number: int, sha256: str) -> bytes | None:
        name = self._named(number, sha256)
        text = (self.store.read(name) or (None, ""))[0]
        if text is not None:
            _require(hashlib.sha256(text).hexdigest(), sha256, f"{self.store.url}/{name}")
        return text

    def _fetch(self, kind: str, reference: Reference) -> None:
        """In place of one that was made here at another time: its files have the same bytes, and are not fetched where they have."""
        target, sha256 = self._workspace.place(kind, reference.id), reference.manifest_sha256
        if _is_whole(target, sha256):
            return
        place = _place(kind, reference.id, sha256)
        with staging_folder(self._workspace.root / ".staging", f"{kind}-{reference.id}", leftovers="") as folder:
            self._download(f"{place}/{MANIFEST}", folder / MANIFEST, sha256)
            with _intact(f"{self.store.url}/{place}/{MANIFEST}"):
                manifest = parse_sealed(Manifest, (folder / MANIFEST).read_bytes())
            here = {name for name, record in manifest.files.items() if is_intact(target / inside(name), record)}
            require_free_space(folder, sum(record.size for name, record in manifest.files.items() if name not in here))
            for name, record in manifest.files.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if name in here:
                    link_or_copy(target / name, path)
                else:
                    self._download(f"{place}/{name}", path, record.sha256)
            remove(target)
            self._workspace.commit(folder, kind, reference.id)

    def _download(self, name: str, path: Path, sha256: str) -> None:
        found = self.store.find(name)
        if found is None:
            raise IntegrityError("is missing", where=f"{self.store.url}/{name}", remedy=_AGAIN)
        self.store.download(found, path)
        _require(sha256_of(path), sha256, f"{self.store.url}/{name}")


def _plain(move: Move) -> Move:
    """Without the seal that it has as a file: the ledger has its own."""
    return Move.model_validate(move.model_dump(exclude={"seal"}))


def _place(kind: str, artifact_id: str, manifest_sha256: str) -> str:
    return f"{kind}/{artifact_id}/{manifest_sha256[:16]}"


def _send(store: ObjectStore, artifact: Artifact) -> None:
    manifest = artifact.path / MANIFEST
    place = _place(artifact.kind, artifact.id, sha256_of(manifest))
    if (store.read(f"{place}/{MANIFEST}") or (b"", ""))[0] == manifest.read_bytes():
        return
    for file, record in artifact.manifest.files.items():
        there = store.find(f"{place}/{file}")
        if there is None or there.size != record.size:
            store.upload(f"{place}/{file}", artifact.file(file))
    store.upload(f"{place}/{MANIFEST}", manifest)


def _is_whole(path: Path, manifest_sha256: str) -> bool:
    if not (path / MANIFEST).is_file() or sha256_of(path / MANIFEST) != manifest_sha256:
        return False
    files: dict[str, FileRecord] = open_artifact(path).manifest.files
    return all(is_intact(path / name, record) for name, record in files.items())


def _require(found: str, expected: str, where: str) -> None:
    if found != expected:
        raise IntegrityError(f"is damaged: sha256 {found[:12]}", where=where, expected=expected[:12], remedy=_AGAIN)


def _require_schema(ledger: Ledger, where: str) -> None:
    if ledger.schema_version != SCHEMA_VERSION:
        raise IntegrityError(f"schema version {ledger.schema_version}", where=where, expected=str(SCHEMA_VERSION))


@contextlib.contextmanager
def _intact(where: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        first = str(error).splitlines()[0]
        raise IntegrityError(f"is damaged: {first}", where=where, remedy="push again from where it was made") from None
