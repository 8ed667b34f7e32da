"""gc: what nights left behind and nothing that is published needs any more."""

import contextlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from retrieval.core.artifacts import Workspace, open_artifact
from retrieval.core.errors import IntegrityError
from retrieval.core.logging import get_logger
from retrieval.core.publication import Publication, Version
from retrieval.core.removal import half_removed, put_away, size_of
from retrieval.stages.nightly.records import Nights
from retrieval.stages.recipe import Recipe

_NIGHTS = 2
"""Dates whose runs keep their artifacts whatever became of them: the one to be retried, and the one before."""
Name = tuple[str, str]
"""Kind and id of an artifact."""
log = get_logger("gc")


@dataclass(frozen=True)
class Collected:
    """Directories of artifacts and of work that nobody goes on with, and their bytes."""

    paths: list[Path]
    bytes: int


def collect(root: Path, recipe: Recipe, *, dry_run: bool = False) -> Collected:
    """Remove what nights of this recipe made or a pull brought, and what neither its last `nightly.keep` published versions nor the
    runs of its last two dates refer to: artifacts, checkpoints and parts of them, and shards of lists. What a night only found is left
    alone. Whoever calls holds the night's lock.

    dry_run: only say what would go.

    Raises:
        IntegrityError: the pointer is damaged. ConflictError: somebody publishes or rolls back.
    """
    workspace = Workspace(root)
    # No rollback to a version while it goes.
    with Publication(root, recipe.name).alone():
        garbage = _garbage(root, recipe)
        paths = sorted(path for kind, name in garbage.union(_shards(workspace, garbage)) if (path := root / kind / name).is_dir())
        scratch = {name: folder for name in sorted(garbage) if (folder := workspace.idle_scratch(*name))}
        left = half_removed(root)
        found = [*paths, *scratch.values(), *left]
        size = sum(size_of(path) for path in found)
        away = [] if dry_run else list(_put_away(paths))
    if found and not dry_run:
        for path in [*away, *left]:
            shutil.rmtree(path, ignore_errors=True)
        for name in scratch:
            workspace.drop_scratch(*name)
        log.info("collected", artifacts=len(found), bytes=size)
    return Collected(found, size)


def _put_away(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        try:
            yield put_away(path)
        except OSError as error:
            log.warning("cannot be removed", path=str(path), error=str(error))


def _garbage(root: Path, recipe: Recipe) -> set[Name]:
    return (_made(root, recipe.name) | _pulled(root, recipe.name)) - _needed(root, recipe)


def _made(root: Path, name: str) -> set[Name]:
    """Not what a night found: somebody else made it, and may have use for it."""
    return {artifact for record in Nights(root, name).all() for artifact in record.begun}


def _pulled(root: Path, name: str) -> set[Name]:
    """What versions of nights brought that ran elsewhere."""
    nights = Nights(root, name)
    here = {record.run for record in nights.all()} | nights.damaged().keys()
    return _artifacts(version for version in Publication(root, name).given() if version.about.get("run") not in here)


def _shards(workspace: Workspace, garbage: set[Name]) -> Iterator[Name]:
    """Shards of lists that a cluster made and nobody joined: no record names them, but each names its index."""
    for path in workspace.list("candidates"):
        with contextlib.suppress(IntegrityError, KeyError):
            manifest = open_artifact(path).manifest
            if manifest.settings["scope"]["shards"] > 1 and ("index", manifest.inputs["index"]) in garbage:
                yield "candidates", manifest.id


def _needed(root: Path, recipe: Recipe) -> set[Name]:
    """By this recipe; and all that nights of other recipes in the workspace made, used or published, which is theirs to collect."""
    names = {path.name for path in [*_folders(root / "nights"), *_folders(root / "published")]} - {recipe.name}
    others = {artifact for name in names for artifact in _used(root, name) | _artifacts(Publication(root, name).given())}
    records = Nights(root, recipe.name).all()
    late = list(dict.fromkeys(record.date for record in reversed(records)))[:_NIGHTS]
    _require_known(root, recipe.name, late, names)
    own = {artifact for record in records if record.date in late for artifact in record.artifacts}
    publication = Publication(root, recipe.name)
    publication.current()  # Where it is damaged, nobody knows what readers have open.
    return own | others | _artifacts(islice(publication.given(), recipe.nightly.keep))


def _require_known(root: Path, name: str, late: Sequence[str], others: Iterable[str]) -> None:
    """What a record that cannot be read refers to is not known: while it could be needed, nothing goes."""
    own = {run: error for run, error in Nights(root, name).damaged().items() if not late or run >= min(late)}
    theirs = [error for other in others for error in Nights(root, other).damaged().values()]
    for error in [*own.values(), *theirs]:
        raise error


def _used(root: Path, name: str) -> set[Name]:
    return {artifact for record in Nights(root, name).all() for artifact in record.artifacts}


def _folders(path: Path) -> list[Path]:
    return [each for each in path.iterdir() if each.is_dir()] if path.is_dir() else []


def _artifacts(versions: Iterable[Version]) -> set[Name]:
    return {(kind, reference.id) for version in versions for kind, reference in version.artifacts.items()}
