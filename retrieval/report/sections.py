"""What stands in a report, section by section, whatever it is rendered to."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from retrieval.evaluation.measurements import Comparison
from retrieval.report import charts, figures, words
from retrieval.report.content import DataSummary, FrontierPoint, HealthFigure, ReportContent, Results, SampleUser, StageRecord, System
from retrieval.report.tables import Cell, Rows, Section, Table, chart, measured, table

_PARTS = 200  # more points of a training curve than this make a table nobody reads


def sections(content: ReportContent) -> tuple[Section, ...]:
    """Every section in order; one without content says what is missing."""
    return (
        _headline(content.results),
        _over_cutoffs(content.results),
        _frontier(content),
        _health(content.interests.health),
        _data(content),
        _training(content),
        _stages(content.run.stages),
        _users(content),
        _config(content),
    )


def _headline(results: Results) -> Section:
    systems, confidence = _ordered(results), f"{100 * results.confidence:g} %"
    reading = (
        f"Means over users; the bars and the figures in small print are the {confidence} interval, the range the mean would stay in "
        "had other users been drawn. Higher, and further right, is better, except for gini."
    )
    drawn = chart("headline", f"{results.primary} of every system with its interval", charts.dots(systems, results.primary))
    tables = (_metric_table(results, systems), *_difference_table(results))
    return Section("headline", "Headline figures", reading, "" if systems else "No system was measured.", drawn, tables if systems else ())


def _ordered(results: Results) -> tuple[System, ...]:
    main = results.main
    return (*(() if main is None else (main,)), *results.baselines)


def _metric_table(results: Results, systems: tuple[System, ...]) -> Table:
    n = words.cutoff(results.primary)
    names = [name for name in _known(systems, "metrics") if words.cutoff(name) == n]
    overall = [name for name in _known(systems, "overall") if words.cutoff(name) == n]
    rows: Rows = [[Cell(name, words.meaning(name)), *(measured(system.metrics.get(name), name) for system in systems)] for name in names]
    rows += [
        [Cell(name, words.meaning(name)), *(Cell(figures.decimal(system.overall.get(name))) for system in systems)] for name in overall
    ]
    return table(f"All metrics at {n} candidates", ["metric", *(system.name for system in systems)], rows)


def _known(systems: tuple[System, ...], attribute: str) -> list[str]:
    """The names any system has, in the order they first occur."""
    return list(dict.fromkeys(name for system in systems for name in getattr(system, attribute)))


def _difference_table(results: Results) -> Iterator[Table]:
    """Main minus baseline, user by user, at the primary cut-off."""
    found, n = results.comparisons, words.cutoff(results.primary)
    names = list(dict.fromkeys(name for c in found.values() for name in c.differences if words.cutoff(name) == n))
    if not names or results.main is None:
        return
    rows: Rows = [[name, *(_difference(found[baseline], name) for baseline in found)] for name in names]
    caption = f"{results.main.name} minus each baseline, compared user by user: an interval clear of zero is a real difference"
    yield table(caption, ["metric", *(f"minus {baseline}" for baseline in found)], rows)


def _difference(comparison: Comparison, metric: str) -> Cell:
    found, better = comparison.differences.get(metric), comparison.better(metric)
    tone, digits = {True: "up", False: "down", None: "quiet"}[better], words.digits(metric)
    return Cell(figures.signed(found.mean if found else None, digits), figures.span(found, digits, sign=True), tone)


def _over_cutoffs(results: Results) -> Section:
    systems = _ordered(results)
    cutoffs = results.cutoffs or tuple(sorted({int(n) for name in _known(systems, "metrics") if (n := _recall_cutoff(name))}))
    drawn = chart("recall", "Recall over the length of the list, a line a system", charts.over_cutoffs(systems, "recall", cutoffs))
    rows: Rows = [[system.name, *(measured(system.metrics.get(f"recall@{n}"), "recall") for n in cutoffs)] for system in systems]
    tables = (table("Recall at every list length", ["system", *(f"recall@{n}" for n in cutoffs)], rows, folded=True),) if drawn else ()
    reading = "Longer lists find more. Higher is better; lines whose bars overlap widely may not differ."
    return Section("recall", "Recall over n", reading, "" if drawn else "Recall was not measured.", drawn, tables)


def _recall_cutoff(name: str) -> str:
    family, _, n = name.partition("@")
    return n if family == "recall" and n.isdecimal() else ""


def _frontier(content: ReportContent) -> Section:
    n, builders = words.cutoff(content.results.primary), list(dict.fromkeys(point.builder for point in content.frontier))
    across, up, alone = f"diversity@{n}", f"recall@{n}", len(builders) < 2
    drawn = chart("frontier", f"{up} against {across} for every lambda", charts.frontier(content.frontier, across, up))
    names = list(dict.fromkeys(name for point in content.frontier for name in point.metrics))
    points = sorted(content.frontier, key=lambda point: (builders.index(point.builder), point.weight))
    columns = [*(() if alone else ("builder",)), "lambda", *names, f"coverage@{n}"]
    rows: Rows = [[*(() if alone else (point.builder,)), *_frontier_row(point, names)] for point in points]
    tables = (table("Recall and diversity at every lambda", columns, rows, folded=bool(drawn)),) if points else ()
    reading = f"{_price_of_variety(builders)} Right is more varied, up is more accurate; the ring marks the lists of this run."
    return Section("frontier", "Recall against diversity", reading, "" if points else "No other lambda was tried.", drawn, tables)


def _frontier_row(point: FrontierPoint, names: list[str]) -> Iterator[Cell | str]:
    yield Cell(f"{point.weight:g}", "this run" if point.chosen else "")
    yield from (measured(point.metrics.get(name), name) for name in names)
    yield figures.decimal(point.coverage)


def _price_of_variety(builders: list[str]) -> str:
    if builders in ([], ["category_greedy"]):
        return "Lambda weighs how much a candidate of a new category is preferred."
    return "Lambda weighs variety, by each list builder's own measure of it, against scores; at 0 all of them give the same lists."


def _health(health: tuple[HealthFigure, ...]) -> Section:
    rows: Rows = [[Cell(one.label, one.meaning), figures.decimal(one.value), one.good or figures.MISSING, _judged(one)] for one in health]
    tables = (table("Health of the interests", ["figure", "value", "good is", "here"], rows, texts=(0, 2, 3)),) if health else ()
    reading = "A multi-interest model is worth its price only when a user's interests differ from each other and all of them are used."
    return Section("health", "Interest health", reading, "" if health else "The interests were not measured.", (), tables)


def _judged(figure: HealthFigure) -> Cell:
    return {True: Cell("good", tone="good"), False: Cell("out of range", tone="bad"), None: Cell(figures.MISSING, tone="quiet")}[
        figure.healthy
    ]


def _users(content: ReportContent) -> Section:
    users = content.interests.sample_users
    reading = (
        "What was known of a user, what each interest points at, and the list made from them. A hit is an item the user really chose next."
    )
    return Section("users", "Sample users", reading, "" if users else "No user was sampled.", users=users)


def _data(content: ReportContent) -> Section:
    data = content.data
    known = [(name, getattr(data, name)) for name in ("users", "items", "events", "categories")]
    rows: Rows = [[name, figures.count(value)] for name, value in known]
    rows += [["first event", figures.text(data.first_event)], ["last event", figures.text(data.last_event)]]
    aside = [[rule, figures.count(broken)] for rule, broken in data.quarantine.items()]
    tables = [] if data == DataSummary() else [table(data.name or "Counts", ["what", "how much"], rows)]
    tables += [table("Rows set aside, by the rule they broke", ["rule", "rows"], aside)] if aside else []
    missing = "The data set was not described." if data == DataSummary() else "No row was set aside."
    reading = "What remained of the log after validation and filters; every figure here was learned from it or measured on it."
    return Section("data", "Data", reading, "" if aside else missing, (), tuple(tables))


def _training(content: ReportContent) -> Section:
    curve = content.training
    label = f"Training loss and {curve.metric} over steps"
    drawn = chart("training", label, charts.training(curve))
    step = max(1, -(-len(curve.points) // _PARTS))
    watched = list(curve.points[0].health) if curve.points else []
    rows: Rows = [
        [figures.count(point.step), *map(figures.decimal, (point.loss, point.validation, *(point.health.get(name) for name in watched)))]
        for point in curve.points[::step]
    ]
    columns = ["step", "loss", curve.metric, *(name.replace("_", " ") for name in watched)]
    tables = (table(label, columns, rows, texts=(), folded=True),) if drawn else ()
    reading = "The loss should fall and level out; the validation figure should rise and not fall again."
    reading += " The table holds the health of the interests on the way, too." * bool(watched)
    return Section("training", "Training", reading, "" if drawn else "Nothing was trained.", drawn, tables)


def _stages(stages: tuple[StageRecord, ...]) -> Section:
    rows: Rows = [
        [
            one.stage,
            figures.duration(one.seconds),
            figures.size(one.peak_memory_bytes),
            "reused" if one.skipped else "run",
            one.artifact or "-",
        ]
        for one in stages
    ]
    columns = ["stage", "time", "peak memory", "this time", "artifact"]
    tables = (table("Stages in order", columns, rows, texts=(0, 3, 4)),) if stages else ()
    reading = "What each stage took when it ran. A reused stage had unchanged inputs; its figures are of the run that made it."
    return Section("stages", "Time and memory", reading, "" if stages else "The stages were not recorded.", (), tables)


def _config(content: ReportContent) -> Section:
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


def user_table(user: SampleUser) -> Table:
    """The list of a sample user."""
    rows: Rows = [
        [
            figures.count(item.rank),
            figures.text(item.title),
            figures.text(item.category),
            figures.text(item.interest),
            figures.decimal(item.score),
            Cell("hit", tone="good") if item.hit else Cell(figures.MISSING if item.hit is None else "", tone="quiet"),
        ]
        for item in user.items
    ]
    return table(f"The list of user {user.user}", ["rank", "title", "category", "interest", "score", "hit"], rows, texts=(1, 2, 5))
