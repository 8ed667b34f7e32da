"""What every night leaves behind, published or not: one JSON file a run, rewritten whole as the run goes on."""

import datetime as dt
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from retrieval.core.durable import replace_text
from retrieval.core.errors import IntegrityError, UsageError
from retrieval.core.formats import require_schema
from retrieval.core.locks import Owner
from retrieval.core.logging import get_logger
from retrieval.core.secrets import without_secrets
from retrieval.core.settings import Settings
from retrieval.stages.ensure import StageRecord
from retrieval.stages.nightly.gates import Gate

SCHEMA_VERSION = 1
log = get_logger("nightly")
Status = Literal["running", "published", "unchanged", "held back", "failed", "interrupted"]


class StageFigures(Settings):
    """One stage of a run: its artifact, what making it cost, and whether this run made it or found it."""

    stage: str
    kind: str
    id: str
    skipped: bool
    seconds: float
    peak_memory_bytes: int
    bytes: int

    @staticmethod
    def of(record: StageRecord) -> "StageFigures":
        manifest = record.artifact.manifest
        return StageFigures(
            stage=record.stage,
            kind=record.artifact.kind,
            id=record.artifact.id,
            skipped=record.skipped,
            seconds=manifest.seconds,
            peak_memory_bytes=manifest.peak_memory_bytes,
            bytes=sum(file.size for file in manifest.files.values()),
        )


class NightRecord(Settings):
    """One run of `nightly`.

    `run`: its id, the date and a number. `request`: what `retry` needs to ask for the same again. `rows`: of the log. `trained`: how, and
    why so. `begun`: kind and id of what it set out to make, done or not. `published`: the version it became, 0 for none. `overrides`:
    gate -> reason, as asked for.
    """

    schema_version: int = SCHEMA_VERSION
    run: str
    recipe: str
    date: str
    request: dict[str, Any]
    owner: dict[str, Any]
    status: Status = "running"
    exit_code: int | None = None
    error: str = ""
    started: str
    ended: str = ""
    seconds: float = 0.0
    rows: int = 0
    trained: str = ""
    begun: tuple[tuple[str, str], ...] = ()
    stages: tuple[StageFigures, ...] = ()
    gates: tuple[Gate, ...] = ()
    overrides: dict[str, str] = Field(default_factory=dict)
    published: int = 0
    headline: dict[str, Any] = Field(default_factory=dict)

    @property
    def artifacts(self) -> set[tuple[str, str]]:
        """Kind and id of everything that the run made, began or used."""
        return {(stage.kind, stage.id) for stage in self.stages} | set(self.begun)


def text_of(record: NightRecord) -> str:
    """What is kept of it."""
    return json.dumps(without_secrets(record.model_dump(mode="json")), indent=2)


def nobodys(_: NightRecord) -> bool:
    """What a workspace that shares nothing says of every name of a run."""
    return True


class Nights:
    """The runs of one recipe in a workspace: WORKSPACE/nights/NAME/DATE.NUMBER.json."""

    def __init__(self, root: Path, name: str) -> None:
        self.folder = root / "nights" / name

    def next(
        self,
        recipe: str,
        date: dt.date,
        request: dict[str, Any],
        overrides: dict[str, str],
        claim: Callable[[NightRecord], bool] = nobodys,
    ) -> NightRecord:
        """A record with the next number of its date that `claim` says is nobody's, not yet written; whoever writes it holds the
        night's lock.
        """
        number = 1 + max((int(path.stem.rpartition(".")[2]) for path in self.folder.glob(f"{date}.*.json")), default=0)
        owner = Owner.here()
        record = NightRecord(
            run=f"{date}.{number:03d}",
            recipe=recipe,
            date=date.isoformat(),
            request=request,
            owner=asdict(owner),
            started=owner.since,
            overrides=overrides,
        )
        while not claim(record):
            number += 1
            record = record.model_copy(update={"run": f"{date}.{number:03d}"})
        return record

    def write(self, record: NightRecord) -> None:
        """Put the record in place of its last state."""
        replace_text(self.folder / f"{record.run}.json", text_of(record))

    def all(self) -> list[NightRecord]:
        """Every run, in the order in which they began. Damaged records are warned about and left out."""
        found = [record for record in self._read().values() if isinstance(record, NightRecord)]
        return sorted(found, key=lambda record: (record.started, record.run))

    def damaged(self) -> dict[str, IntegrityError]:
        """Run -> what is wrong with its record."""
        return {run: error for run, error in self._read().items() if isinstance(error, IntegrityError)}

    def last(self, date: str = "") -> NightRecord:
        """The run that began last, of a date if one is given.

        Raises:
            UsageError: there is none. IntegrityError: its record cannot be read.
        """
        found = [record for record in self.all() if date in ("", record.date)]
        for run, error in self.damaged().items():
            if run.startswith(date) and (not found or run > found[-1].run):
                raise error
        if not found:
            raise UsageError(f"there is no run{f' for {date}' if date else ''}", where=self.folder, remedy="run retrieval nightly first")
        return found[-1]

    def _read(self) -> dict[str, NightRecord | IntegrityError]:
        return {path.stem: _read(path) for path in sorted(self.folder.glob("[0-9]*.json"))}


def _read(path: Path) -> NightRecord | IntegrityError:
    """One record that cannot be read must not stop the nights after it."""
    try:
        require_schema(path, SCHEMA_VERSION)
        return NightRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except IntegrityError as error:
        found = error
    except (OSError, UnicodeDecodeError, ValidationError):
        found = IntegrityError("is damaged", where=path, expected="the record of a run", remedy="delete it")
    _warn(str(found))
    return found


@cache
def _warn(error: str) -> None:
    """Once: records are read again and again."""
    log.warning("the record of a run is left out", error=error)
