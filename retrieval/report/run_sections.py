"""What the figures rest on: index, data, training, time and memory, configuration."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from retrieval.report import charts, figures, interest_charts
from retrieval.report.content import DataSummary, IndexCandidate, IndexQuality, ReportContent
from retrieval.report.tables import Cell, Rows, Section, Table, chart, table, thinned


def index(content: ReportContent) -> Section:
    """What the index finds of what exact search finds."""
    found = content.index
    drawn = chart("index", "What every index tried finds against what it costs", charts.index_candidates(found))
    reading = "An approximate index trades a share of the exact lists for time and memory; what it loses, no list builder gets back."
    tables = (_index_table(found), *((_candidates_table(found),) if found.candidates else ())) if found.factory else ()
    return Section("index", "Index quality", reading, "" if found.factory else "The index was not measured.", drawn, tables)


def _index_table(found: IndexQuality) -> Table:
    gate = Cell("held", found.setting, "good") if found.held else Cell("failed", found.setting, "bad")
    rows: Rows = [
        ["index", found.factory],
        ["items", figures.count(found.items)],
        ["dimensions", figures.count(found.dimension)],
        ["size", figures.size(found.bytes)],
        [Cell("share of the exact lists", f"of {figures.count(found.n)} items; 1 for exact search"), figures.decimal(found.recall)],
        [Cell("surely more than", "in 95 of 100 samples of users"), figures.decimal(found.lower_bound)],
        ["interests asked for", figures.count(found.queries)],
        ["wanted", figures.decimal(found.wanted)],
        ["gate", gate],
    ]
    return table("The index against exact search", ["what", "here"], rows)


def _candidates_table(found: IndexQuality) -> Table:
    ordered = sorted(found.candidates, key=lambda one: (one.seconds is None, one.seconds or 0.0))
    columns = ["index", "share of the exact lists", "lower bound", "core-us a user", "ms alone", "memory", "verdict"]
    return table("Every index that was tried, cheapest first", columns, map(_candidate_row, ordered), texts=(0, 6), folded=True)


def _candidate_row(one: IndexCandidate) -> list[Cell | str]:
    times = (one.seconds and 1e6 * one.seconds, one.latency and 1e3 * one.latency)
    memory = figures.size(None if one.memory_bytes is None else round(one.memory_bytes))
    shown = (figures.decimal(one.recall), figures.decimal(one.lower_bound), figures.decimal(times[0], 1), figures.decimal(times[1], 2))
    return [figures.text(one.name), *shown, memory, figures.text(one.verdict)]


def data(content: ReportContent) -> Section:
    """What remained of the log, who is tested, and what was left out by which rule."""
    found = content.data
    known, aside = found != DataSummary(), {**found.quarantine, **{f"filtered: {name}": rows for name, rows in found.filtered.items()}}
    tables = (*_counts(found), _left_out(aside)) if known else ()
    reading = "What remained of the log after validation and filters; every figure here was learned from it or measured on it."
    missing = "" if aside else "No row was set aside." if known else "The data set was not described."
    return Section("data", "Data quality", reading, missing, (), tables if aside else tables[:-1])


def _counts(found: DataSummary) -> Iterator[Table]:
    names = ("users", "items", "events", "rows", "categories", "items_without_category", "items_without_training_events")
    rows: Rows = [[name.replace("_", " "), figures.count(getattr(found, name))] for name in names]
    rows += [["first event", figures.text(found.first_event)], ["last event", figures.text(found.last_event)]]
    yield table(found.name or "Counts", ["what", "how much"], rows)
    if found.split:
        split: Rows = [[name.replace("_", " "), figures.count(value)] for name, value in found.split.items()]
        yield table(f"Who trains and who is tested, by the protocol {found.protocol}", ["what", "how many"], split)
    if found.events_of_a_user:
        yield table("Events of a user", ["quantile", "events"], [[name, f"{value:g}"] for name, value in found.events_of_a_user.items()])


def _left_out(aside: Mapping[str, int]) -> Table:
    rows: Rows = [[rule, figures.count(broken)] for rule, broken in aside.items()]
    return table("Rows left out, by the rule they broke", ["rule", "rows"], rows)


def training(content: ReportContent) -> Section:
    """Loss, validation and interests over steps."""
    curve = content.training
    label = f"Training loss and {curve.metric} over steps"
    drawn = chart("training", label, interest_charts.training(curve))
    rows: Rows = [
        [figures.count(point.step), figures.decimal(point.loss), figures.decimal(point.validation)] for point in thinned(curve.points)
    ]
    tables = (table(label, ["step", "loss", curve.metric], rows, texts=(), folded=True),) if drawn else ()
    reading = "The loss should fall and level out; the validation figure should rise and not fall again."
    return Section("training", "Training", reading, "" if drawn else "Nothing was trained.", drawn, tables)


def stages(content: ReportContent) -> Section:
    """Time and memory of every stage."""
    rows: Rows = [
        [
            one.stage,
            figures.duration(one.seconds),
            figures.size(one.peak_memory_bytes),
            "reused" if one.skipped else "run",
            one.artifact or "-",
        ]
        for one in content.run.stages
    ]
    columns = ["stage", "time", "peak memory", "this time", "artifact"]
    tables = (table("Stages in order", columns, rows, texts=(0, 3, 4)),) if rows else ()
    reading = "What each stage took when it ran. A reused stage had unchanged inputs; its figures are of the run that made it."
    return Section("stages", "Time and memory", reading, "" if rows else "The stages were not recorded.", (), tables)


def config(content: ReportContent) -> Section:
    """What the run is a function of."""
    settings = [[name, value] for name, value in _flat(content.run.config)]
    hashes = list(content.run.hashes.items())
    tables = [table("Settings of the run", ["setting", "value"], settings, texts=(0, 1), folded=True)] if settings else []
    tables += [table("Ids and hashes", ["name", "id"], hashes, texts=(0, 1), folded=True)] if hashes else []
    reading = "Equal settings and hashes give equal figures."
    return Section("config", "Configuration", reading, "" if tables else "The settings were not recorded.", (), tuple(tables))


def _flat(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Nested tables as dotted names."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
