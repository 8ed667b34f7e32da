"""A comparison as a page: who is better and how surely, where, for whom, and by which settings."""

from collections.abc import Iterator, Sequence
from typing import Literal

from retrieval.evaluation.comparison import Comparison, Difference
from retrieval.report import charts, figures, words
from retrieval.report.compared import CompareContent, MovedUser, Pair, SideBySide, SideItem, SliceRow
from retrieval.report.content import System
from retrieval.report.tables import Card, Cell, Page, Rows, Section, Table, chart, difference, measured, table


def compare_page(content: CompareContent) -> Page:
    """What the renderers show of a comparison."""
    sections = (_metrics(content), _settings(content), _slices(content), _moved(content), _lists(content))
    return Page(content.title, content.created, "Verdict", tuple(sentences(content)), sections)


def sentences(content: CompareContent) -> Iterator[str]:
    """For every run beside the first: how it does at the deciding metric and at the others, for how many users, and what could be seen."""
    first = content.systems[0].name if content.systems else ""
    for pair in content.pairs:
        yield f"{_primary(pair, first, content)} {_others(pair, content.primary)}"
        shown = f"{figures.count(pair.gained)} users gained, {figures.count(pair.lost)} lost, {figures.count(pair.same)} have the same"
        common = "" if pair.common is None else f"; their lists have {figures.percent(pair.common)} of the items in common"
        yield f"From {first} to {pair.name}: {shown} {content.primary}{common}."
        seen = pair.comparison.detectable_in_words(content.primary)
        if seen:
            yield seen


def _primary(pair: Pair, first: str, content: CompareContent) -> str:
    found, better = pair.comparison.differences.get(content.primary), pair.comparison.higher(content.primary)
    if found is None or found.mean is None:
        return f"{pair.name} and {first} have no {content.primary} in common."
    by = f"{figures.signed(found.mean)}, {100 * content.confidence:g} % interval {figures.span(found, sign=True)}"
    relation = {True: "is better than", False: "is worse than", None: "cannot be told apart from"}[better]
    return f"Over {figures.count(pair.comparison.users)} users {pair.name} {relation} {first} at {content.primary} ({by})."


def _others(pair: Pair, primary: str) -> str:
    names = [name for name in pair.comparison.differences if name != primary]
    better = [name for name in names if pair.comparison.higher(name) is True]
    worse = [name for name in names if pair.comparison.higher(name) is False]
    said = [f"higher at {_few(better)}"] * bool(better) + [f"lower at {_few(worse)}"] * bool(worse)
    sure = " and ".join(said) or "at none of them surely different"
    return f"Of {len(names)} other figures, corrected for their number (Holm), it is {sure}."


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def _metrics(content: CompareContent) -> Section:
    reading = (
        f"Means over users with their {100 * content.confidence:g} % interval, and paired differences: the run minus the first one, user "
        "by user, with p of the paired t test corrected for the number of figures (Holm). An arrow marks a sure difference, its colour "
        "whether it is good; the deciding figure was named before and is tested alone."
    )
    drawn = chart(
        "metrics",
        f"{content.primary} of every run",
        charts.dots([System(name=s.name, metrics=s.metrics) for s in content.systems], content.primary),
    )
    n = words.cutoff(content.primary)
    names = list(dict.fromkeys(name for system in content.systems for name in system.metrics))
    near, far = ([name for name in names if (words.cutoff(name) == n) is here] for here in (True, False))
    tables = [_metric_table(content, near, f"All metrics at {n} candidates", folded=False)]
    tables += [_metric_table(content, far, "At other list lengths", folded=True)] if far else []
    overall = list(dict.fromkeys(name for system in content.systems for name in system.overall))
    tables += [_metric_table(content, overall, "Of all lists together", folded=True, of="overall")] if overall else []
    return Section("metrics", "Metrics side by side", reading, "", drawn, tuple(tables))


def _metric_table(
    content: CompareContent, names: Sequence[str], caption: str, *, folded: bool, of: Literal["metrics", "overall"] = "metrics"
) -> Table:
    rows: Rows = [
        [
            Cell(name, words.meaning(name)),
            *(measured(getattr(system, of).get(name), name) for system in content.systems),
            *(_difference(pair.comparison, name) for pair in content.pairs),
        ]
        for name in names
    ]
    columns = ["metric", *(system.name for system in content.systems)]
    columns += [f"{pair.name} minus {content.systems[0].name}" for pair in content.pairs]
    return table(caption, columns, rows, folded=folded)


def _difference(comparison: Comparison, metric: str) -> Cell:
    found = comparison.differences.get(metric)
    return difference(found, metric, comparison.higher(metric), more=_p(found))


def _p(found: Difference | None) -> str:
    if found is None or found.adjusted is None:
        return ""
    return "p < 0.0001" if found.adjusted < 0.0001 else f"p {figures.decimal(found.adjusted)}"


def _settings(content: CompareContent) -> Section:
    rows: Rows = [[one.name, *(figures.text(value) for value in one.values)] for one in content.settings]
    columns = ["setting", *(system.name for system in content.systems)]
    tables = (table("Settings that differ", columns, rows, texts=range(len(columns))),) if rows else ()
    reading = "Everything that the runs were made with and do not share, from the log to the lists, with the versions of the libraries."
    return Section("settings", "What differs", reading, "" if rows else "The runs have the same settings.", (), tables)


def _slices(content: CompareContent) -> Section:
    tables = tuple(
        _slice_table(content, name, [row for row in content.slices if row.dimension == name])
        for name in dict.fromkeys(row.dimension for row in content.slices)
    )
    won = {system.name: sum(row.winner == system.name for row in content.slices) for system in content.systems}
    findings = tuple(f"{name} is surely better in {count} of {len(content.slices)} slices." for name, count in won.items() if count)
    reading = "A winner is surely better than every other run in the slice, corrected for the number of slices of its kind."
    return Section("slices", "Winners by slice", reading, "" if tables else "No slice was measured.", (), tables, findings=findings)


def _slice_table(content: CompareContent, dimension: str, rows_of: Sequence[SliceRow]) -> Table:
    names, first = [system.name for system in content.systems], content.systems[0].name
    rows: Rows = [
        [
            figures.text(row.value),
            Cell(figures.count(row.users), "too few to tell" if row.few else ""),
            *(measured(row.means.get(name), row.metric) for name in names),
            *(difference(row.differences.get(name), row.metric, None) for name in names[1:]),
            figures.text(row.winner),
        ]
        for row in rows_of
    ]
    columns = [dimension, "users", *names, *(f"{name} minus {first}" for name in names[1:]), "winner"]
    return table(f"{rows_of[0].metric} by {dimension}", columns, rows, texts=(0, len(columns) - 1))


def _moved(content: CompareContent) -> Section:
    tables = tuple(one for pair in content.pairs for one in _moved_tables(pair, content))
    reading = f"Users by the change of their {content.primary}; the list of each says why."
    return Section("users", "Who gained and who lost", reading, "" if tables else "Nobody gained or lost.", (), tables)


def _moved_tables(pair: Pair, content: CompareContent) -> Iterator[Table]:
    first = content.systems[0].name
    for word, users in (("gained", pair.most_gained), ("lost", pair.most_lost)):
        if users:
            rows: Rows = [_moved_row(user) for user in users]
            yield table(f"Users who {word} most from {first} to {pair.name}", ["user", first, pair.name, "change"], rows)


def _moved_row(user: MovedUser) -> list[Cell | str]:
    tone = "up good" if user.change > 0 else "down bad"
    return [figures.text(user.user), figures.decimal(user.first), figures.decimal(user.other), Cell(figures.signed(user.change), "", tone)]


def _lists(content: CompareContent) -> Section:
    cards = tuple(_card(shown, pair, content) for pair in content.pairs for shown in pair.lists)
    reading = (
        "A tick marks a hidden item that the user really chose; the small print says where the item stands in the other list. Below the "
        "first items only hits are shown."
    )
    return Section("lists", "Lists side by side", reading, "" if cards else "No list is shown.", cards=cards)


def _card(shown: SideBySide, pair: Pair, content: CompareContent) -> Card:
    first, user = content.systems[0].name, figures.text(shown.moved.user)
    by_rank = [{item.rank: item for item in items} for items in (shown.first, shown.other)]
    rows: Rows = [
        [figures.count(place), _item(by_rank[0].get(place), pair.name), _item(by_rank[1].get(place), first)]
        for place in sorted(by_rank[0].keys() | by_rank[1].keys())
    ]
    asked = "1 hidden item" if shown.targets == 1 else f"{figures.count(shown.targets)} hidden items"
    note = f"{asked}; {content.primary} {figures.signed(shown.moved.change)} from {first} to {pair.name}."
    lists = table(f"Lists of user {user} from {first} and {pair.name}", ["rank", first, pair.name], rows, texts=(1, 2))
    title = f"User {user}" if len(content.pairs) == 1 else f"User {user}, {first} and {pair.name}"
    return Card(title, note, tables=(lists,))


def _item(item: SideItem | None, other: str) -> Cell:
    if item is None:
        return Cell(figures.MISSING)
    place = f"rank {item.elsewhere} of {other}" if item.elsewhere else f"not of {other}"
    small = f"{figures.text(item.category)}, {place}"
    return Cell(f"\u2713 {figures.text(item.title)}", f"{small}, a hit", "good") if item.hit else Cell(figures.text(item.title), small)
