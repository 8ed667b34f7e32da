"""The record of a run as it grows, and what may fail beside a run without failing it."""

import contextlib
import datetime as dt
import time
from collections.abc import Iterator

from retrieval.core.errors import InterruptedRunError, QualityGateError, RetrievalError, exit_code_of
from retrieval.core.logging import get_logger
from retrieval.stages.ensure import StageRecord
from retrieval.stages.nightly.estimates import Expected, expected
from retrieval.stages.nightly.records import NightRecord, Nights, StageFigures, Status

log = get_logger("nightly")


class RunLog:
    """The record, written again whenever something has become of the run."""

    def __init__(self, nights: Nights, record: NightRecord) -> None:
        self._nights, self.record, self._start = nights, record, time.monotonic()
        self.expected: dict[str, Expected] = {}
        """What stages are expected to take, once the run has begun."""

    def begin(self) -> None:
        self._nights.write(self.record)
        self.expected = expected(self._nights.all(), 0)

    def note(self, **changes: object) -> None:
        self.record = self.record.model_copy(update={**changes, "seconds": round(time.monotonic() - self._start, 3)})
        self._nights.write(self.record)

    def told_of(self, version: int) -> dict[str, object]:
        """What the run found that published a version, as this one would find it; nothing where it ran elsewhere or its record is gone."""
        found = next((each for each in self._nights.all() if (each.status, each.published) == ("published", version)), None)
        if found is None:
            return {}
        stages = tuple(stage.model_copy(update={"skipped": True}) for stage in found.stages)
        return {"rows": found.rows, "trained": found.trained, "headline": found.headline, "gates": found.gates, "stages": stages}

    def stage(self, done: StageRecord) -> None:
        self.note(stages=(*self.record.stages, StageFigures.of(done)))

    def end(self, status: Status, error: BaseException | None = None) -> None:
        """Known here even where it cannot be written."""
        said = str(error) if isinstance(error, RetrievalError) else "" if error is None else type(error).__name__
        code = exit_code_of(error) if error else 0
        log.info("night ended", status=status, exit_code=code, seconds=self.record.seconds)
        self.note(status=status, exit_code=code, error=said, ended=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"))


def status_of(error: BaseException) -> Status:
    """What becomes of a run that an error ends."""
    if isinstance(error, QualityGateError):
        return "held back"
    return "interrupted" if isinstance(error, (InterruptedRunError, KeyboardInterrupt)) else "failed"


@contextlib.contextmanager
def warned(consequence: str) -> Iterator[None]:
    """What stands beside the work may fail: it is said, and what was done is done all the same."""
    try:
        yield
    except (OSError, RetrievalError) as error:
        log.warning(consequence, error=str(error))
