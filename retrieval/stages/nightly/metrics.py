"""A night in the text format of Prometheus' node exporter (textfile collector)."""

import datetime as dt
from collections.abc import Iterable, Iterator
from pathlib import Path

from retrieval.core.durable import replace_text
from retrieval.core.errors import IntegrityError
from retrieval.core.publication import Publication, Version
from retrieval.core.secrets import redacted
from retrieval.stages.nightly.records import NightRecord
from retrieval.stages.recipe import Recipe

Sample = tuple[dict[str, str], float]


def write_metrics(recipe: Recipe, publication: Publication, record: NightRecord) -> Path:
    """Put the figures of a run in place of the last one's, in `nightly.metrics` or beside the publication; readers see one or the other."""
    folder = recipe.nightly.metrics
    path = Path(folder) / f"retrieval-{recipe.name}.prom" if folder else publication.folder / "metrics.prom"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, redacted("".join(_text(publication, record))))
    return path


def _text(publication: Publication, record: NightRecord) -> Iterator[str]:
    own, current = {"recipe": record.recipe}, _current(publication)
    stages = {each.stage: each for each in record.stages}
    over = [] if record.exit_code is None else [(own, record.exit_code)]
    yield from _family("running", "1 from the beginning of a run to its end; of one that was killed, too.", [(own, not over)])
    yield from _family("start_timestamp_seconds", "When the last run began.", [(own, _seconds(record.started))])
    yield from _family("exit_code", "Exit code of the last run, -1 where it was killed; none while it runs.", over)
    ended = [(own, _seconds(record.ended))] if record.ended else []
    yield from _family("end_timestamp_seconds", "When the last run ended.", ended)
    yield from _family("duration_seconds", "Wall time of the last run.", [(own, record.seconds)])
    yield from _family("rows", "Rows of the log that the last run read.", [(own, record.rows)] if record.rows else [])
    yield from _family("stage_seconds", "Wall time of making a stage.", ((own | {"stage": n}, s.seconds) for n, s in stages.items()))
    peaks = ((own | {"stage": name}, stage.peak_memory_bytes) for name, stage in stages.items())
    yield from _family("stage_peak_memory_bytes", "Largest resident memory while a stage was made.", peaks)
    held = ((own | {"gate": each.name}, each.outcome != "failed") for each in record.gates)
    yield from _family("gate_held", "1 where a gate held, was overridden, or had nothing to judge.", held)
    able = ((own | {"gate": each.name}, each.outcome != "not judged") for each in record.gates)
    yield from _family("gate_judged", "0 where a gate had nothing to judge.", able)
    values = ((own | {"gate": each.name}, each.value) for each in record.gates if each.value is not None)
    yield from _family("gate_value", "What a gate found.", values)
    if current:
        yield from _family("published_version", "The version that readers take.", [(own, current.number)])
        yield from _family("published_timestamp_seconds", "When it was made.", [(own, _seconds(current.created))])


def _current(publication: Publication) -> Version | None:
    """What readers take; nothing where it is damaged, which the exit code tells."""
    try:
        return publication.current()
    except IntegrityError:
        return None


def _family(name: str, text: str, samples: Iterable[Sample]) -> Iterator[str]:
    full = f"retrieval_nightly_{name}"
    yield f"# HELP {full} {text}\n# TYPE {full} gauge\n"
    for labels, value in samples:
        said = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"{full}{{{said}}} {float(value)!r}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _seconds(moment: str) -> float:
    return dt.datetime.fromisoformat(moment).timestamp() if moment else 0.0
