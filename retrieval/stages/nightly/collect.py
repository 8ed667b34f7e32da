"""gc: what nights left behind and nothing that is published needs any more."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from retrieval.core.artifacts import remove
from retrieval.core.logging import get_logger
from retrieval.core.publication import Publication
from retrieval.stages.nightly.records import Nights
from retrieval.stages.recipe import Recipe

_NIGHTS = 2
"""Dates whose runs keep their artifacts whatever became of them: the one to be retried, and the one before."""
log = get_logger("gc")


@dataclass(frozen=True)
class Collected:
    """Directories of artifacts, and their bytes."""

    paths: list[Path]
    bytes: int


def collect(root: Path, recipe: Recipe, *, dry_run: bool = False) -> Collected:
    """Remove artifacts that nights of this recipe made and that neither its last `nightly.keep` published versions nor the runs of
    its last two dates
    refer to; what no night made is left alone. Whoever calls holds the night's lock.

    dry_run: only say what would go.
    """
    garbage = _made(root, recipe.name) - _needed(root, recipe)
    paths = sorted(path for kind, name in garbage if (path := root / kind / name).is_dir())
    found = Collected(paths, sum(file.stat().st_size for path in paths for file in path.rglob("*") if file.is_file()))
    for path in [] if dry_run else paths:
        remove(path)
    if paths and not dry_run:
        log.info("collected", artifacts=len(paths), bytes=found.bytes)
    return found


def _made(root: Path, name: str) -> set[tuple[str, str]]:
    return {artifact for record in Nights(root, name).all() for artifact in record.artifacts}


def _needed(root: Path, recipe: Recipe) -> set[tuple[str, str]]:
    """By this recipe; and all that nights of other recipes in the workspace made or published, which are theirs to collect."""
    names = {path.name for path in [*_folders(root / "nights"), *_folders(root / "published")]} - {recipe.name}
    others = {artifact for name in names for artifact in _made(root, name) | _published(Publication(root, name), 0)}
    records = Nights(root, recipe.name).all()
    late = list(dict.fromkeys(record.date for record in reversed(records)))[:_NIGHTS]
    Publication(root, recipe.name).current()  # Where it is damaged, nobody knows what readers have open.
    own = {artifact for record in records if record.date in late for artifact in record.artifacts}
    return own | others | _published(Publication(root, recipe.name), recipe.nightly.keep)


def _folders(path: Path) -> list[Path]:
    return [each for each in path.iterdir() if each.is_dir()] if path.is_dir() else []


def _published(publication: Publication, keep: int) -> set[tuple[str, str]]:
    """Kind and id of the artifacts of the last `keep` versions that readers were given, 0 for all."""
    versions = islice(publication.given(), keep or None)
    return {(kind, reference.id) for version in versions for kind, reference in version.artifacts.items()}
