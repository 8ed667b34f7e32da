"""What the lists are worth: the headline, recall over n, and accuracy against diversity."""

from collections.abc import Iterator

from retrieval.report import charts, words
from retrieval.report.content import FrontierPoint, ReportContent, Results, System
from retrieval.report.tables import Cell, Chart, Rows, Section, Table, chart, difference, measured, table

_ACCURACY = ("recall", "ndcg")
_TRADED = (*_ACCURACY, "hr", "diversity", "entropy", "distance", "novelty", "calibration_js")


def headline(content: ReportContent) -> Section:
    """The primary metric and all others at its cut-off, beside the baselines."""
    results = content.results
    systems, confidence = _ordered(results), f"{100 * results.confidence:g} %"
    reading = (
        f"Means over users; the bars and the figures in small print are the {confidence} interval, the range the mean would stay in "
        "had other users been drawn. Higher, and further right, is better; of gini and calibration lower is, and of the shares of popular "
        "and rare items neither. An arrow marks a difference that is sure, its colour whether it is good."
    )
    drawn = chart("headline", f"{results.primary} of every system with its interval", charts.dots(systems, results.primary))
    tables = (_metric_table(results, systems), *_difference_table(results))
    reading += f" {results.detectable}" * bool(results.detectable)
    return Section("headline", "Headline figures", reading, "" if systems else "No system was measured.", drawn, tables if systems else ())


def _ordered(results: Results) -> tuple[System, ...]:
    main = results.main
    return (*(() if main is None else (main,)), *results.baselines)


def _metric_table(results: Results, systems: tuple[System, ...]) -> Table:
    n = words.cutoff(results.primary)
    names = [name for name in _known(systems, "metrics") if words.cutoff(name) == n]
    overall = [name for name in _known(systems, "overall") if words.cutoff(name) == n]
    rows: Rows = [[Cell(name, words.meaning(name)), *(measured(system.metrics.get(name), name) for system in systems)] for name in names]
    rows += [[Cell(name, words.meaning(name)), *(measured(system.overall.get(name), name) for system in systems)] for name in overall]
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
    rows: Rows = [[name, *(difference(each.differences.get(name), name, each.higher(name)) for each in found.values())] for name in names]
    caption = f"{results.main.name} minus each baseline, user by user; an arrow: sure after correction for many metrics"
    yield table(caption, ["metric", *(f"minus {baseline}" for baseline in found)], rows)


def over_cutoffs(content: ReportContent) -> Section:
    """Recall at every length of the list."""
    results = content.results
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


def frontier(content: ReportContent) -> Section:
    """Accuracy against diversity for every list builder and lambda."""
    n, points = words.cutoff(content.results.primary), content.frontier
    builders = list(dict.fromkeys(point.builder for point in points))
    drawn = tuple(one for name in _ACCURACY for one in _trade(content, f"{name}@{n}", f"diversity@{n}"))
    tables = (_frontier_table(points, builders, n),) if points else ()
    reading = (
        f"{_price_of_variety(builders)} Right is more varied, up is more accurate; the ring marks the lists of this run, with its interval."
    )
    return Section("frontier", "Accuracy against diversity", reading, "" if points else "No other lambda was tried.", drawn, tables)


def _trade(content: ReportContent, up: str, across: str) -> tuple[Chart, ...]:
    return chart(f"frontier-{words.family(up)}", f"{up} against {across} for every lambda", charts.frontier(content.frontier, across, up))


def _frontier_table(points: tuple[FrontierPoint, ...], builders: list[str], n: str) -> Table:
    """What is traded, at the primary cut-off: all metrics would make it too wide to be read, and stand in the JSON."""
    measured_here = {name for point in points for name in point.metrics}
    names = [name for family in _TRADED if (name := f"{family}@{n}") in measured_here]
    ordered = sorted(points, key=lambda point: (builders.index(point.builder), point.weight))
    rows: Rows = [[point.builder, *_frontier_row(point, names)] for point in ordered]
    return table("Every list builder at every lambda", ["builder", "lambda", *names], rows, folded=True)


def _frontier_row(point: FrontierPoint, names: list[str]) -> Iterator[Cell | str]:
    yield Cell(f"{point.weight:g}", "this run" if point.chosen else "")
    yield from (measured(point.metrics.get(name), name) for name in names)


def _price_of_variety(builders: list[str]) -> str:
    if builders in ([], ["category_greedy"]):
        return "Lambda weighs how much a candidate of a new category is preferred."
    return "Lambda weighs variety, by each list builder's own measure of it, against scores; at 0 all of them give the same lists."
