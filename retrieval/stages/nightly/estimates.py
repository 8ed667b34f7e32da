"""What a night will cost, from what earlier ones did."""

from collections.abc import Sequence
from statistics import median

from retrieval.core.settings import Settings
from retrieval.stages.nightly.records import NightRecord, StageFigures

_RUNS = 5


class Expected(Settings):
    """What a stage is expected to take; the median over `runs` earlier ones that made it, scaled by the rows of the log."""

    seconds: float
    peak_memory_bytes: int
    bytes: int
    runs: int


def expected(records: Sequence[NightRecord], rows: int) -> dict[str, Expected]:
    """Stage -> what it is expected to take on a log of so many rows; 0 rows: as many as there were."""
    made: dict[str, list[tuple[StageFigures, float]]] = {}
    for record in reversed(records):
        scale = rows / record.rows if rows and record.rows else 1.0
        for stage in record.stages:
            if not stage.skipped and len(made.setdefault(stage.stage, [])) < _RUNS:
                made[stage.stage].append((stage, scale))
    return {name: _scaled(found) for name, found in made.items() if found}


def _scaled(found: Sequence[tuple[StageFigures, float]]) -> Expected:
    return Expected(
        seconds=round(median(stage.seconds * scale for stage, scale in found), 3),
        peak_memory_bytes=round(median(stage.peak_memory_bytes * scale for stage, scale in found)),
        bytes=round(median(stage.bytes * scale for stage, scale in found)),
        runs=len(found),
    )
