"""What every night leaves behind, published or not: one JSON file a run, rewritten whole as the run goes on."""

import datetime as dt
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from retrieval.core.durable import replace_text
from retrieval.core.errors import IntegrityError, UsageError
from retrieval.core.formats import require_schema
from retrieval.core.locks import Owner
from retrieval.core.secrets import without_secrets
from retrieval.core.settings import Settings
from retrieval.stages.ensure import StageRecord
from retrieval.stages.nightly.gates import Gate

SCHEMA_VERSION = 1
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


class Nights:
    """The runs of one recipe in a workspace: WORKSPACE/nights/NAME/DATE.NUMBER.json."""

    def __init__(self, root: Path, name: str) -> None:
        self.folder = root / "nights" / name

    def begin(self, recipe: str, date: dt.date, request: dict[str, Any], overrides: dict[str, str]) -> NightRecord:
        """A record with the next number of its date; whoever calls holds the night's lock."""
        self.folder.mkdir(parents=True, exist_ok=True)
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
        self.write(record)
        return record

    def write(self, record: NightRecord) -> None:
        """Put the record in place of its last state."""
        replace_text(self.folder / f"{record.run}.json", json.dumps(without_secrets(record.model_dump(mode="json")), indent=2))

    def all(self) -> list[NightRecord]:
        """Every run, in the order in which they began."""
        found = [_read(path) for path in self.folder.glob("[0-9]*.json")] if self.folder.is_dir() else []
        return sorted(found, key=lambda record: (record.started, record.run))

    def last(self, date: str = "") -> NightRecord:
        """The run that began last, of a date if one is given. Raises UsageError when there is none."""
        found = [record for record in self.all() if date in ("", record.date)]
        if not found:
            raise UsageError(f"there is no run{f' for {date}' if date else ''}", where=self.folder, remedy="run retrieval nightly first")
        return found[-1]


def _read(path: Path) -> NightRecord:
    require_schema(path, SCHEMA_VERSION)
    try:
        return NightRecord.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        raise IntegrityError("is damaged", where=path, expected="the record of a run", remedy="delete it") from None
