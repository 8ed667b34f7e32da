"""The verbs beside `nightly` itself: they look at what nights left, move the pointer, and ask for a night again."""

import datetime as dt
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from retrieval.core.errors import IntegrityError, UsageError
from retrieval.core.locks import Owner, exclusive, owner_of, user_name
from retrieval.core.publication import Publication, Version
from retrieval.stages.nightly import summary
from retrieval.stages.nightly.collect import Collected, collect
from retrieval.stages.nightly.metrics import write_metrics
from retrieval.stages.nightly.night import run_night
from retrieval.stages.nightly.records import NightRecord, Nights
from retrieval.stages.nightly.request import Request
from retrieval.stages.nightly.running import warned
from retrieval.stages.nightly.shared import SharedNights
from retrieval.stages.recipe import Recipe

SCHEMA_VERSION = 1
Ended = Callable[[NightRecord], None]
"""Gets the record of a night, whatever became of it."""


def retry(
    root: Path, recipe: Recipe, overrides: Mapping[str, str], ended: Ended, *, path: Path | None = None, new_normal: bool = False
) -> NightRecord:
    """Run the last night of a recipe again, as it was asked for; what it finished is found and not made again.

    path: where the recipe lies here; by default where it lay.

    Raises:
        UsageError: there was none, or it was published.
    """
    SharedNights(root, recipe).sync()
    last = Nights(root, recipe.name).last()
    if last.status in ("published", "unchanged"):
        raise UsageError(f"run {last.run} was {last.status}", where="retry", expected="one that failed", remedy="run retrieval nightly")
    return run_night(_asked_by(last, root, recipe, path, new_normal), {**last.overrides, **overrides}, ended)


def publish(
    root: Path,
    recipe: Recipe,
    date: dt.date | None,
    overrides: Mapping[str, str],
    ended: Ended,
    *,
    path: Path | None = None,
    new_normal: bool = False,
) -> NightRecord:
    """Publish a night that was held back, by default the last one: the night again, with the gates that may fail, those of before included.

    Whatever it had made is found; what stands behind a gate that failed is made now. path: as for `retry`.

    Raises:
        UsageError: there was no such night. QualityGateError: a gate that failed was not overridden.
    """
    SharedNights(root, recipe).sync()
    record = Nights(root, recipe.name).last(date.isoformat() if date else "")
    return run_night(_asked_by(record, root, recipe, path, new_normal), {**record.overrides, **overrides}, ended)


def _asked_by(record: NightRecord, root: Path, recipe: Recipe, path: Path | None, new_normal: bool) -> Request:
    """The same again, in this workspace and with this store."""
    changes = [*record.request["changes"], *([f"nightly.store={recipe.nightly.store}"] if recipe.nightly.store else [])]
    flags = {**({"new_normal": True} if new_normal else {}), **({"path": str(path)} if path else {})}
    return Request.from_json({**record.request, "workspace": str(root), "changes": changes, **flags})


def rollback(root: Path, recipe: Recipe, number: int, why: str) -> Version:
    """Make an earlier version current, in the store, too; its artifacts are checked, byte for byte, before the pointer moves."""
    publication, shared = Publication(root, recipe.name), SharedNights(root, recipe)
    shared.sync(artifacts=False)
    number = publication.earlier(number).number
    shared.fetch(publication.version(number))
    version = publication.rollback(number, why=why or f"rolled back by {user_name()}", announce=shared.announce)
    nights = Nights(root, recipe.name)
    with warned("metrics are those of another version"):
        runs = nights.all()
        if runs:
            write_metrics(recipe, publication, told(runs[-1], running=owner_of(nights.folder / ".lock") is not None))
    return version


def status(root: Path, recipe: Recipe) -> dict[str, Any]:
    """What is published and where it lies, what of that is damaged, who runs a night now, and what became of the last one."""
    publication, nights = Publication(root, recipe.name), Nights(root, recipe.name)
    version, paths, damaged = _whole(publication)
    runs = nights.all()
    owner = owner_of(nights.folder / ".lock")
    last = told(runs[-1], running=owner is not None) if runs else None
    return {
        "schema_version": SCHEMA_VERSION,
        "recipe": recipe.name,
        "published": version.model_dump(mode="json") if version else None,
        "paths": paths,
        "damaged": damaged + [str(error) for error in nights.damaged().values()],
        "running": None if owner is None else vars(owner) | {"age_seconds": round(owner.age_seconds(), 1)},
        "last": last.model_dump(mode="json") if last else None,
    }


def _whole(publication: Publication) -> tuple[Version | None, dict[str, str], list[str]]:
    """What readers take, where its artifacts lie, and an error for whatever is not what was published."""
    paths: dict[str, str] = {}
    damaged: list[str] = []
    try:
        version = publication.current()
    except IntegrityError as error:
        return None, paths, [str(error)]
    if version is None:
        return None, paths, damaged
    for kind in version.artifacts:
        try:
            paths[kind] = str(publication.artifact(version, kind).path.resolve())
        except IntegrityError as error:
            damaged.append(str(error))
    return version, paths, damaged


def status_lines(found: Mapping[str, Any], root: Path, recipe: Recipe) -> str:
    """`status` for a person."""
    nights = Nights(root, recipe.name)
    version = Version.model_validate(found["published"]) if found["published"] else None
    last = NightRecord.model_validate(found["last"]) if found["last"] else None
    return summary.status_lines(version, found, owner_of(nights.folder / ".lock"), last)


def history(root: Path, recipe: Recipe) -> dict[str, Any]:
    """Every run, every version and every move of the pointer."""
    publication, nights = Publication(root, recipe.name), Nights(root, recipe.name)
    running = owner_of(nights.folder / ".lock") is not None
    runs = nights.all()
    return {
        "schema_version": SCHEMA_VERSION,
        "recipe": recipe.name,
        "runs": [told(run, running=running and run is runs[-1]).model_dump(mode="json") for run in runs],
        "versions": [version.model_dump(mode="json") for version in publication.versions()],
        "moves": [move.model_dump() for move in publication.moves()],
    }


def history_lines(root: Path, recipe: Recipe) -> str:
    """`history` for a person."""
    publication, runs = Publication(root, recipe.name), Nights(root, recipe.name).all()
    running = owner_of(Nights(root, recipe.name).folder / ".lock") is not None
    return summary.history_lines([told(run, running=running and run is runs[-1]) for run in runs], publication.moves())


def gc(root: Path, recipe: Recipe, *, dry_run: bool) -> Collected:
    """Remove what nothing published needs; not while a night runs.

    Raises:
        ConflictError: a night of the recipe runs.
    """
    nights = Nights(root, recipe.name)
    if not nights.folder.is_dir() and not Publication(root, recipe.name).folder.is_dir():
        raise UsageError("no night ever ran", where=nights.folder, remedy="run retrieval nightly first")
    nights.folder.mkdir(parents=True, exist_ok=True)
    with exclusive(nights.folder / ".lock", f"nightly of {recipe.name}"):
        return collect(root, recipe, dry_run=dry_run)


def told(record: NightRecord, *, running: bool) -> NightRecord:
    """A record as it is: one that says it runs while nobody does was killed, as far as this machine can tell."""
    if record.status != "running" or running:
        return record
    machine = record.owner["machine"]
    elsewhere = "" if machine == Owner.here().machine else f", or at work on {machine}"
    return record.model_copy(update={"status": "interrupted", "exit_code": -1, "error": f"killed without a word{elsewhere}"})
