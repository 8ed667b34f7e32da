"""The record of a search: one JSON file, replaced whole after every training that ended."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from retrieval.core.durable import replace_text
from retrieval.core.errors import ConflictError, IntegrityError
from retrieval.core.formats import require_schema
from retrieval.core.settings import Settings

SCHEMA_VERSION = 1
TRIALS = "trials.json"


class RungResult(Settings):
    """What a training had reached when it was compared; `seconds` are those of the process that recorded it."""

    step: int
    value: float
    best_step: int
    seconds: float


class Trial(Settings):
    """One configuration: its place in the order of drawing, its settings by dotted path, the model they make."""

    number: int
    settings: dict[str, Any]
    model: str
    results: tuple[RungResult, ...] = ()
    failed: str = ""
    """Why it has no further result."""

    @property
    def value(self) -> float | None:
        """The latest value; None for a failed trial, whatever it had reached before."""
        return None if self.failed or not self.results else self.results[-1].value

    @property
    def seconds(self) -> float:
        return sum(result.seconds for result in self.results)


class _Record(Settings):
    schema_version: int = SCHEMA_VERSION
    identity: str
    trials: list[Trial]


class Study:
    """The trials of one search, in `folder`/trials.json; `identity` is what they are a function of."""

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder, self.identity = folder, identity
        self.trials: dict[int, Trial] = {trial.number: trial for trial in self._read()}

    def record(self, trial: Trial) -> None:
        """Keep a trial, on the disk when this returns."""
        self.trials[trial.number] = trial
        record = _Record(identity=self.identity, trials=[self.trials[each] for each in sorted(self.trials)])
        text = json.dumps(record.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False)
        replace_text(self.folder / TRIALS, text + "\n")

    def first(self, count: int) -> list[Trial]:
        """The trials with the lowest numbers, in order."""
        return [self.trials[number] for number in sorted(self.trials) if number < count]

    def _read(self) -> list[Trial]:
        path = self.folder / TRIALS
        if not path.exists():
            return []
        require_schema(path, SCHEMA_VERSION)
        try:
            record = _Record.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ValidationError):
            raise IntegrityError("is damaged", where=path, remedy="remove it and search again") from None
        if record.identity != self.identity:
            raise ConflictError(
                "holds the trials of another search",
                where=self.folder,
                expected="the same log, recipe and search file",
                remedy="remove the folder, or give this search another one with --set name=NAME",
            )
        return record.trials


def ranked(trials: list[Trial], rung: int) -> list[Trial]:
    """The trials that ended a rung, best first; of equals the earlier one. What failed later keeps its place here."""
    return sorted((trial for trial in trials if len(trial.results) > rung), key=lambda trial: (-trial.results[rung].value, trial.number))
