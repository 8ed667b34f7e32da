"""What a person sees of nights: one screen each."""

from collections.abc import Mapping, Sequence
from typing import Any

from retrieval.core.locks import Owner
from retrieval.core.publication import Move, Version
from retrieval.stages.nightly.records import NightRecord

_MARKS = {"held": "ok", "failed": "FAILED", "overridden": "OVERRIDDEN", "not judged": "NOT JUDGED"}


def screen(record: NightRecord) -> str:
    """A run: what became of it, what its stages cost, and what the gates said."""
    lines = [_headline(record), f"trained {record.trained}; {record.rows:,} rows of the log", ""]
    lines += table(["stage", "made", "wall", "memory", "on disk"], [_stage(each) for each in record.stages])
    lines += ["", *table(["gate", "", "found", "asked"], [[g.name, _MARKS[g.outcome], g.found, g.asked] for g in record.gates])]
    lines += ["published already: the night again with --again"] if record.status == "unchanged" else []
    lines += [f"overridden by {g.who} at {g.at}: {g.name}, {g.why}" for g in record.gates if g.outcome == "overridden"]
    return "\n".join(line.rstrip() for line in [*lines, *([f"error: {record.error}"] if record.error else [])])


def history_lines(records: Sequence[NightRecord], moves: Sequence[Move]) -> str:
    """Runs, then moves of the pointer; the latest last."""
    runs = [
        [r.run, r.status, f"{r.published or '-'}", duration(r.seconds), _metric(r.headline), r.error.partition(";")[0]] for r in records
    ]
    moved = [[m.at[:19], f"{m.before or '-'} -> {m.after}", m.who, m.why] for m in moves]
    told = table(["run", "status", "version", "wall", "primary", ""], runs)
    return "\n".join(line.rstrip() for line in [*told, "", *table(["moved at (UTC)", "version", "by", "why"], moved)])


def status_lines(version: Version | None, found: Mapping[str, Any], owner: Owner | None, last: NightRecord | None) -> str:
    """What is published, what of that is damaged, whether a night runs, and what became of the last one."""
    published = f"version {version.number} of {version.date}, made {version.created[:19]}" if version else "nothing that can be read"
    lines = [["published", published if version or found["damaged"] else "nothing"]]
    lines += [[f"  {kind}", path] for kind, path in sorted(found["paths"].items())] + [["DAMAGED", each] for each in found["damaged"]]
    lines += [["running", str(owner) if owner else "no"]]
    lines += [["last run", f"{last.run}: {last.status} {last.error}"]] if last else []
    width = max(len(name) for name, _ in lines) + 2
    return "\n".join(f"{name:<{width}}{value}".rstrip() for name, value in lines)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as far as they matter."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"


def amount(count: float) -> str:
    """Bytes for a person."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _headline(record: NightRecord) -> str:
    version = f" as version {record.published}" if record.published else ""
    return f"{record.recipe}, night of {record.date} (run {record.run}): {record.status}{version}, {duration(record.seconds)}"


def _stage(stage: Any) -> list[str]:
    made = "found" if stage.skipped else "new"
    return [stage.stage, made, duration(stage.seconds), amount(stage.peak_memory_bytes), amount(stage.bytes)]


def _metric(headline: dict[str, Any]) -> str:
    measured = {name: found.get("mean") for name, found in headline.items() if isinstance(found, dict)}
    return ", ".join(f"{name} {mean:.4f}" for name, mean in measured.items() if mean is not None)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows under a head, in columns."""
    widths = [max(len(str(row[column])) for row in [head, *rows]) + 2 for column in range(len(head))]
    return ["".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]]
