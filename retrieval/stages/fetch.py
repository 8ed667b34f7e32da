"""fetch: sources in an object store -> the same files in the workspace; what has not changed there since is not fetched again."""

import contextlib
import hashlib
import os
import re
from functools import partial
from pathlib import Path

from retrieval.core.artifacts import Artifact, StagedArtifact, Workspace, open_artifact, sha256_of
from retrieval.core.errors import IntegrityError
from retrieval.core.locks import exclusive, lock_of
from retrieval.core.logging import get_logger
from retrieval.core.objects import SCHEME, Found, ObjectStore
from retrieval.core.resources import require_free_space
from retrieval.core.settings import fingerprint
from retrieval.core.staging import link_or_copy
from retrieval.data.objects import RemoteSource, find_objects
from retrieval.data.settings import DataSettings
from retrieval.stages.ensure import Stages

FETCH = "fetch"
_FOLDER = "objects"
_MD5 = re.compile(r"[0-9a-f]{32}")
log = get_logger("fetch")


def fetch(data: DataSettings, stages: Stages) -> DataSettings:
    """The data settings with every source on this machine: an artifact for every state of a source, named by the tags of its objects.

    What a dataset is a function of are the bytes, wherever they came from.

    Raises:
        UsageError: nothing is there. ResourceError: the store does not answer, or the disk has no room. ConflictError: another process
        fetches the same. IntegrityError: an object does not arrive as it was put.
    """
    return data.at({name: str(_local(name, path, stages)) for name, path in data.paths.items() if path.startswith(SCHEME)})


def _local(name: str, url: str, stages: Stages) -> Path:
    source = find_objects(url, f"data.{name}.path")
    inputs = {each: _state(found) for each, found in source.objects.items()}
    write = partial(_write, source, stages.workspace)
    artifact = stages.ensure(f"{FETCH} {name}", "inputs", settings={"root": source.url}, inputs=inputs, write=write)
    folder = artifact.path / _FOLDER
    return folder / next(iter(source.objects)) if source.single else folder


def _state(found: Found) -> str:
    return f"{found.tag.strip(chr(34))} {found.size}"


def _write(source: RemoteSource, workspace: Workspace, staged: StagedArtifact) -> None:
    """Objects that an earlier artifact has are links to its files, so that a day's objects are all that a day costs."""
    scratch = staged.scratch()
    with exclusive(lock_of(scratch), f"fetch of {source.url}"):
        places = _places(source, workspace, scratch)
        missing = {name: found for name, found in source.objects.items() if not places[name].is_file()}
        size = sum(found.size for found in missing.values())
        require_free_space(workspace.root, size)
        for name, found in missing.items():
            _download(source.store, found, places[name])
        for name, place in places.items():
            link_or_copy(place, staged.path(f"{_FOLDER}/{name}"))
    staged.summary |= {"objects": len(places), "fetched_objects": len(missing), "fetched_bytes": size}
    log.info("fetched", source=source.url, objects=len(places), fetched=len(missing), bytes=size)


def _places(source: RemoteSource, workspace: Workspace, scratch: Path) -> dict[str, Path]:
    """Where each object lies already, or will."""
    known: dict[tuple[str, str], tuple[Artifact, str]] = {}
    for path in workspace.list("inputs"):
        with contextlib.suppress(IntegrityError):
            artifact = open_artifact(path)
            root = artifact.manifest.settings["root"]
            known |= {(f"{root}/{name}", state): (artifact, name) for name, state in artifact.manifest.inputs.items()}
    places: dict[str, Path] = {}
    for name, found in source.objects.items():
        places[name] = scratch / fingerprint({"name": name, "state": _state(found)})
        with contextlib.suppress(KeyError, IntegrityError):
            artifact, before = known[f"{source.url}/{name}", _state(found)]
            places[name] = artifact.file(f"{_FOLDER}/{before}")
    return places


def _download(store: ObjectStore, found: Found, place: Path) -> None:
    """Whole, or not there: whatever is killed meanwhile."""
    part = place.with_suffix(".part")
    store.download(found, part)
    _require_intact(store, found, part)
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    part.replace(place)


def _require_intact(store: ObjectStore, found: Found, part: Path) -> None:
    """A tag of 32 hex digits is the MD5 of an object that was put at once, unless the store encrypts it under a key of a key
    service (SSE-KMS, SSE-C): then a second download has to agree. Of an object put in parts only the size is known.
    """
    tag = found.tag.strip('"')
    if not _MD5.fullmatch(tag) or _md5(part) == tag:
        return
    again = part.with_suffix(".again")
    store.download(found, again)
    if sha256_of(again) != sha256_of(part):
        where = f"{store.url}/{found.name}"
        raise IntegrityError(
            "arrives with other bytes every time", where=where, expected=f"MD5 {tag}", remedy="see to the network, and run again"
        )
    again.unlink()


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
