"""What became of the interests: figures, words, a map, and users to look at."""

from collections.abc import Iterator

from retrieval.report import figures, interest_charts, words
from retrieval.report.content import HealthFigure, ItemMap, MapPoint, ReportContent, TrainingCurve
from retrieval.report.tables import Cell, Rows, Section, Table, chart, table, thinned
from retrieval.report.user_cards import user_card

_TREND = ("interest_cosine", "effective_rank")
_WATCHED = "How alike interests were and how many were in use, over training"


def health(content: ReportContent) -> Section:
    """The interests of the test users at the end, and on the way there."""
    found = content.interests.health
    drawn = chart("health", _WATCHED, interest_charts.health_over_training(content.training))
    reading = "A multi-interest model is worth its price only when a user's interests differ from each other and all of them are used."
    reading += " The plot is of validation users, while training went on." * bool(drawn)
    tables = ((_health_table(found),) if found else ()) + ((_watched(content.training),) if drawn else ())
    missing = "" if found else "The interests were not measured."
    findings = (*content.interests.findings, *trend(content.training))
    return Section("health", "Interest health", reading, missing, drawn, tables, findings=findings)


def trend(curve: TrainingCurve) -> Iterator[str]:
    """Where the interests went while training went on, in a sentence."""
    watched = [point for point in curve.points if {"interest_cosine", "effective_rank"} <= point.health.keys()]
    if len(watched) < 2:
        return
    first, last = watched[0], watched[-1]
    moved = [f"{words.health(name)} went from {first.health[name]:.2f} to {last.health[name]:.2f}" for name in _TREND]
    yield f"Between step {figures.count(first.step)} and step {figures.count(last.step)} the {moved[0]} and the {moved[1]}."


def _watched(curve: TrainingCurve) -> Table:
    names = list(dict.fromkeys(name for point in curve.points for name in point.health))
    rows: Rows = [
        [figures.count(point.step), *(figures.decimal(point.health.get(name)) for name in names)] for point in thinned(curve.points)
    ]
    return table(_WATCHED, ["step", *map(words.health, names)], rows, texts=(), folded=True)


def _health_table(found: tuple[HealthFigure, ...]) -> Table:
    rows: Rows = [[Cell(one.label, one.meaning), figures.decimal(one.value), one.good or figures.MISSING, _judged(one)] for one in found]
    return table("Health of the interests at the end", ["figure", "value", "good is", "here"], rows, texts=(0, 2, 3))


def _judged(figure: HealthFigure) -> Cell:
    return {True: Cell("good", tone="good"), False: Cell("out of range", tone="bad"), None: Cell(figures.MISSING, tone="quiet")}[
        figure.healthy
    ]


def item_map(content: ReportContent) -> Section:
    """t-SNE of item vectors with a user among them."""
    found = content.interests.item_map or ItemMap()
    label = f"t-SNE of {figures.count(found.items)} items, the history and the interests of user {found.user}"
    drawn = chart("map", label, interest_charts.item_map(found))
    reading = (
        "Neighbours in the picture are neighbours among the vectors, but distances between clouds mean nothing (t-SNE, van der Maaten and "
        f"Hinton 2008; perplexity {found.perplexity:g}, seed {found.seed}). The tables hold what it can be trusted for."
    )
    tables = (_neighbours(found), _places(found)) if drawn else ()
    return Section("map", "Map of the items", reading if drawn else "", "" if drawn else "No map was drawn.", drawn, tables)


def _neighbours(found: ItemMap) -> Table:
    caption = f"How often the 10 nearest neighbours of an item share its category, over {figures.count(found.items)} items"
    rows: Rows = [
        [figures.text(one.category), figures.count(one.items), figures.percent(one.together), figures.percent(one.by_chance)]
        for one in found.categories
    ]
    return table(caption, ["category", "items", "of the same category", "by chance"], rows)


def _places(found: ItemMap) -> Table:
    own = [point for point in found.points if point.kind != "item"]
    rows: Rows = [[_name(point), figures.text(point.category), figures.decimal(point.x, 1), figures.decimal(point.y, 1)] for point in own]
    return table(f"Where user {found.user} stands in the picture", ["what", "category", "x", "y"], rows, texts=(0, 1), folded=True)


def _name(point: MapPoint) -> str:
    return figures.text(point.label) if point.kind == "history" else point.label


def users(content: ReportContent) -> Section:
    """A few users with what was known of them and what they got."""
    found = content.interests.sample_users
    reading = (
        "What was known of a user, what each interest points at, and the list before and after the diversity step. A hit is an item "
        "that the user really chose next. retrieval explain --sample shows more users."
    )
    cards = tuple(user_card(user) for user in found)
    return Section("users", "Sample users", reading, "" if found else "No user was sampled.", cards=cards)
