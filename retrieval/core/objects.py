"""What is published, in an s3-compatible store: the files of artifacts as objects, and a pointer that is put under a condition.

A file beside others appears by a rename; an object has none, but it is put whole or not at all. Artifacts never change, so files go first
and the manifest last: an artifact whose manifest is there is there. The pointer is put only if it is still the one that was read
(If-Match, or If-None-Match where there was none), so that of two publishers one is told that it lost.
"""

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module, util
from pathlib import Path
from typing import Any

from retrieval.core.artifacts import MANIFEST, Artifact, Manifest, Workspace, inside, sha256_of
from retrieval.core.errors import ConflictError, IntegrityError, ResourceError, UsageError
from retrieval.core.publication import Pointer, Publication, Version
from retrieval.core.sealed import parse_sealed, sealed_text
from retrieval.core.staging import staging_folder

SCHEME = "s3://"
_LANES, _PIECE = 4, 16 << 20
"""Pieces of an object that are under way at once, and their bytes: one that is lost is asked for again, not the whole."""
_CODE = re.compile(r"<Code>(\w+)</Code>")
_MOVED = "pull first, and judge against what is published there"


@dataclass(frozen=True)
class Found:
    """An object of a store: its name, its bytes, and the tag that it keeps as long as nobody puts another one in its place."""

    name: str
    size: int
    tag: str


class ObjectStore:
    """Objects under a URL such as s3://bucket/prefix; credentials and the endpoint come from the environment (AWS_*)."""

    def __init__(self, url: str) -> None:
        if not url.startswith(SCHEME) or not url.removeprefix(SCHEME).strip("/"):
            raise UsageError("is no store", where=url, expected=f"{SCHEME}BUCKET/PREFIX")
        if "@" in url.removeprefix(SCHEME).partition("/")[0]:
            raise UsageError(
                "holds a user name", where=url, expected="credentials in AWS_* of the environment", remedy="take it out of the URL"
            )
        if util.find_spec("obstore") is None:
            raise ResourceError("obstore is not installed", where=url, remedy="pip install 'multi-interest-retrieval[s3]'")
        self.url, self._library = url.rstrip("/"), import_module("obstore")
        self._errors = import_module("obstore.exceptions")
        with self._reported(""):
            self._store = import_module("obstore.store").from_url(self.url, retry_config={"max_retries": 3})

    def read(self, name: str) -> tuple[bytes, str] | None:
        """An object's bytes and its tag; None where there is none."""
        with self._reported(name), contextlib.suppress(FileNotFoundError):
            found = self._library.get(self._store, name)
            return bytes(found.bytes()), str(found.meta["e_tag"])
        return None

    def find(self, name: str) -> Found | None:
        """What there is under a name; None where there is nothing."""
        with self._reported(name), contextlib.suppress(FileNotFoundError):
            return _found(self._library.head(self._store, name))
        return None

    def list(self, folder: str) -> list[Found]:
        """All objects whose names begin with `folder` and a slash, in order of name."""
        with self._reported(folder):
            pages = self._library.list(self._store, prefix=folder or None)
            return sorted((_found(each) for page in pages for each in page), key=lambda found: found.name)

    def download(self, found: Found, target: Path) -> None:
        """Write an object to a file, several pieces at once; held in memory: a piece for each that is under way.

        Raises:
            ResourceError: it is no longer the one that was found, or the store does not answer.
        """

        def piece(start: int) -> None:
            stop = min(start + _PIECE, found.size)
            asked = self._library.get(self._store, found.name, options={"range": (start, stop), "if_match": found.tag})
            content = asked.bytes()
            if len(content) != stop - start or os.pwrite(stream.fileno(), content, start) != stop - start:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(target))

        with self._reported(found.name), target.open("wb") as stream, ThreadPoolExecutor(_LANES) as lanes:
            for _ in lanes.map(piece, range(0, found.size, _PIECE)):
                pass

    def upload(self, name: str, source: Path) -> None:
        """Put a file; a large one in parts, which become an object once all are there."""
        with self._reported(name):
            self._library.put(self._store, name, source)

    def put(self, name: str, content: bytes, tag: str | None) -> bool:
        """Put an object if it is still the one with this tag, or none for None; False where it is not."""
        with self._reported(name):
            try:
                self._library.put(self._store, name, content, mode={"e_tag": tag} if tag else "create")
            except (self._errors.AlreadyExistsError, self._errors.PreconditionError):
                return False
        return True

    @contextlib.contextmanager
    def _reported(self, name: str) -> Iterator[None]:
        where = f"{self.url}/{name}" if name else self.url
        try:
            yield
        except self._errors.PreconditionError:
            raise ResourceError("was replaced while it was read", where=where, remedy="run again") from None
        except (self._errors.BaseError, FileNotFoundError, ValueError) as error:
            raise ResourceError(_said(error), where=where, remedy="check AWS_* in the environment, and the bucket") from None


def _found(meta: Mapping[str, Any]) -> Found:
    return Found(str(meta["path"]), int(meta["size"]), str(meta["e_tag"]))


def _said(error: Exception) -> str:
    """What a store answered, or that it did not: the library tells it in XML and a page of its own."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    first, code = lines[0].partition(": <?xml")[0], _CODE.search(str(error))
    return f"{first} ({code[1]})" if code else first


def push(root: Path, name: str, store: ObjectStore) -> Version:
    """Make what a workspace publishes current in a store. What is there is not sent again.

    Raises:
        ConflictError: what is published there is not known here: another machine published it. UsageError: nothing is published.
        IntegrityError: an artifact is damaged, here or there. ResourceError: the store does not answer.
    """
    publication, folder = Publication(root, name), f"published/{name}"
    version = publication.current()
    if version is None:
        raise UsageError("nothing is published", where=publication.folder, remedy="run retrieval nightly first")
    there = store.read(f"{folder}/current.json")
    before = parse_sealed(Pointer, there[0]) if there else None
    if before and not publication.knows(before):
        raise ConflictError(f"version {before.version} was published from elsewhere", where=store.url, remedy=_MOVED)
    for kind in version.artifacts:
        _send(store, publication.artifact(version, kind))
    text = sealed_text(version).encode()
    named = f"{folder}/versions/{version.number:06d}.json"
    if not store.put(named, text, None) and (store.read(named) or (b"", ""))[0] != text:
        raise ConflictError(f"version {version.number} is another one there", where=store.url, remedy=_MOVED)
    pointer = sealed_text(publication.pointer(version)).encode()
    if (there is None or there[0] != pointer) and not store.put(f"{folder}/current.json", pointer, there[1] if there else None):
        raise ConflictError("another machine published meanwhile", where=store.url, remedy=_MOVED)
    return version


def pull(root: Path, name: str, store: ObjectStore) -> Version:
    """Make what a store publishes current in a workspace; every byte is checked before any of it can be read here.

    Raises:
        UsageError: nothing is published there. IntegrityError: an object is damaged or missing; nothing changes here then.
        ConflictError: this workspace has another version of that number.
    """
    folder = f"published/{name}"
    there = store.read(f"{folder}/current.json")
    if there is None:
        raise UsageError("nothing is published", where=f"{store.url}/{folder}", remedy="run retrieval push first")
    with _intact(f"{store.url}/{folder}"):
        pointer = parse_sealed(Pointer, there[0])
        text = (store.read(f"{folder}/versions/{pointer.version:06d}.json") or (b"", ""))[0]
        version = parse_sealed(Version, text)
        if hashlib.sha256(text).hexdigest() != pointer.sha256:
            raise ValueError("not the version that the pointer names")
    for kind, reference in version.artifacts.items():
        _fetch(store, Workspace(root), kind, reference.id, reference.manifest_sha256)
    publication = Publication(root, name)
    publication.adopt(version, why=f"pulled from {store.url}")
    return version


def _place(kind: str, artifact_id: str, manifest_sha256: str) -> str:
    """By the manifest's hash, too: two machines may make the same artifact, and their manifests say when and where."""
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


def _fetch(store: ObjectStore, workspace: Workspace, kind: str, artifact_id: str, manifest_sha256: str) -> None:
    target = workspace.place(kind, artifact_id)
    if (target / MANIFEST).is_file() and sha256_of(target / MANIFEST) == manifest_sha256:
        return workspace.open(kind, artifact_id).verify()
    if target.exists():
        remedy = "pull into another workspace, or push from this one"
        raise ConflictError("was made here, too, and its manifest is another", where=target, remedy=remedy)
    place = _place(kind, artifact_id, manifest_sha256)
    with staging_folder(workspace.root / ".staging", f"{kind}-{artifact_id}", leftovers="") as folder:
        _download(store, f"{place}/{MANIFEST}", folder / MANIFEST)
        _require(folder / MANIFEST, manifest_sha256, f"{store.url}/{place}/{MANIFEST}")
        with _intact(f"{store.url}/{place}/{MANIFEST}"):
            manifest = parse_sealed(Manifest, (folder / MANIFEST).read_bytes())
        for name, record in manifest.files.items():
            path = folder / inside(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            _download(store, f"{place}/{name}", path)
            _require(path, record.sha256, f"{store.url}/{place}/{name}")
        workspace.commit(folder, kind, artifact_id)
    return None


def _download(store: ObjectStore, name: str, target: Path) -> None:
    found = store.find(name)
    if found is None:
        raise IntegrityError("is missing", where=f"{store.url}/{name}", remedy="push it again from where it was made")
    store.download(found, target)


def _require(path: Path, expected: str, where: str) -> None:
    found = sha256_of(path)
    if found != expected:
        remedy = "remove it there and push it again from where it was made"
        raise IntegrityError(f"is damaged: sha256 {found[:12]}", where=where, expected=expected[:12], remedy=remedy)


@contextlib.contextmanager
def _intact(where: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        first = str(error).splitlines()[0]
        raise IntegrityError(f"is damaged: {first}", where=where, remedy="push again from where it was made") from None
