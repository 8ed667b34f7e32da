"""What is published, in an s3-compatible store: the files of artifacts as objects, and a pointer that is put under a condition.

A file beside others appears by a rename; an object has none, but it is put whole or not at all. Artifacts never change, so files go first
and the manifest last: an artifact whose manifest is there is there. The pointer is put only if it is still the one that was read
(If-Match, or If-None-Match where there was none), so that of two publishers one is told that it lost.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from importlib import import_module, util
from pathlib import Path

from retrieval.core.artifacts import MANIFEST, Artifact, Manifest, Workspace, inside, sha256_of
from retrieval.core.errors import ConflictError, IntegrityError, ResourceError, UsageError
from retrieval.core.publication import Pointer, Publication, Version
from retrieval.core.sealed import parse_sealed, sealed_text
from retrieval.core.staging import staging_folder

_MOVED = "pull first, and judge against what is published there"


class ObjectStore:
    """Objects under a URL such as s3://bucket/prefix; credentials and the endpoint come from the environment (AWS_*)."""

    def __init__(self, url: str) -> None:
        if util.find_spec("obstore") is None:
            raise ResourceError("obstore is not installed", where=url, remedy="pip install 'multi-interest-retrieval[s3]'")
        if not url.startswith("s3://"):
            raise UsageError("is no store", where=url, expected="s3://BUCKET/PREFIX")
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

    def size(self, name: str) -> int:
        """An object's bytes, -1 where there is none."""
        with self._reported(name), contextlib.suppress(FileNotFoundError):
            return int(self._library.head(self._store, name)["size"])
        return -1

    def download(self, name: str, target: Path) -> None:
        """Write an object to a file, piece by piece. Raises IntegrityError where there is none."""
        with self._reported(name), target.open("wb") as stream:
            try:
                for piece in self._library.get(self._store, name).stream():
                    stream.write(piece)
            except FileNotFoundError:
                raise IntegrityError("is missing", where=f"{self.url}/{name}", remedy="push it again from where it was made") from None

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
        try:
            yield
        except self._errors.BaseError as error:
            first = (str(error).strip().splitlines() or [""])[0]
            raise ResourceError(
                f"{type(error).__name__}: {first}", where=f"{self.url}/{name}", remedy="check AWS_* in the environment, and the bucket"
            ) from None


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
        if store.size(f"{place}/{file}") != record.size:
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
        store.download(f"{place}/{MANIFEST}", folder / MANIFEST)
        _require(folder / MANIFEST, manifest_sha256, f"{store.url}/{place}/{MANIFEST}")
        with _intact(f"{store.url}/{place}/{MANIFEST}"):
            manifest = parse_sealed(Manifest, (folder / MANIFEST).read_bytes())
        for name, record in manifest.files.items():
            path = folder / inside(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            store.download(f"{place}/{name}", path)
            _require(path, record.sha256, f"{store.url}/{place}/{name}")
        workspace.commit(folder, kind, artifact_id)
    return None


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
