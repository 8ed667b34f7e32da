"""What the whole is made of: users and targets in slices, and the interests that brought the lists."""

from retrieval.evaluation.slices import Slice
from retrieval.report import charts, figures, words
from retrieval.report.content import ReportContent, System
from retrieval.report.tables import Cell, Rows, Section, Table, chart, table


def slices(content: ReportContent) -> Section:
    """The primary metric in every slice, beside the baselines, a table a dimension."""
    results = content.results
    main = results.main
    found = () if main is None else main.slices
    systems = (*(() if main is None else (main,)), *results.baselines)
    dimensions = list(dict.fromkeys((each.about, each.dimension) for each in found))
    tables = tuple(_slice_table(key, [each for each in found if (each.about, each.dimension) == key], systems) for key in dimensions)
    reading = (
        "The same figure for parts of the users, and for parts of their targets (then the recall of these targets alone). "
        "Small print is the interval; a part with few users says so, and its figure should not be trusted."
    )
    drawn = chart("slices-users", "Parts of the users, with the baselines", charts.slices(systems, "users"))
    drawn += chart("slices-targets", "Parts of the targets, with the baselines", charts.slices(systems, "targets"))
    return Section("slices", "Slices", reading, "" if tables else "No slice was measured.", drawn, tables)


def _slice_table(key: tuple[str, str], members: list[Slice], systems: tuple[System, ...]) -> Table:
    metric = next(iter(members[0].metrics))
    rows: Rows = [[Cell(each.value, each.warning), figures.count(each.users), *_values(systems, each, metric)] for each in members]
    caption = f"{metric} by {key[1]}" + (" of users" if key[0] == "users" else ", of these targets alone")
    return table(caption, [key[1], "users", *(system.name for system in systems)], rows, folded=True)


def _values(systems: tuple[System, ...], wanted: Slice, metric: str) -> list[Cell]:
    return [_value(system, wanted, metric) for system in systems]


def _value(system: System, wanted: Slice, metric: str) -> Cell:
    same = (each for each in system.slices if (each.dimension, each.value) == (wanted.dimension, wanted.value))
    found = next((each.metrics.get(metric) for each in same), None)
    digits = words.digits(metric)
    return Cell(figures.decimal(found.mean if found else None, digits), figures.span(found, digits), "quiet" if wanted.few else "")


def contribution(content: ReportContent) -> Section:
    """What each interest brought to the lists, and how many of the hits."""
    main, n = content.results.main, words.cutoff(content.results.primary)
    shares = [] if main is None else [each for each in main.interests if str(each.n) == n]
    rows: Rows = [
        [
            str(each.interest),
            figures.percent(each.share_of_places),
            figures.percent(each.share_of_hits),
            figures.count(each.hits),
            figures.percent(each.precision),
        ]
        for each in shares
    ]
    columns = ["interest", "share of the lists", "share of the hits", "hits", "hits a place"]
    tables = (table(f"What each interest brought to the first {n}", columns, rows),) if len(shares) > 1 else ()
    reading = "Lists are merged to one of n before anything is counted; an interest with places but without hits only takes room."
    return Section(
        "contribution", "What each interest brings", reading, "" if tables else "There is one interest, which brings all.", (), tables
    )
