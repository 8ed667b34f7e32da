"""Pages as text cells, the shape that both HTML and Markdown are made from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from retrieval.evaluation.bootstrap import Interval
from retrieval.report import figures, words
from retrieval.report.plots import Figure


@dataclass(frozen=True)
class Cell:
    """`small` is a second, lesser line (an interval); `tone` is "", "good", "bad", "quiet", or of a difference "up" or "down", with
    "good" or "bad" after it where it is either.
    """

    text: str
    small: str = ""
    tone: str = ""


Rows = list[list[Cell | str]]


@dataclass(frozen=True)
class Table:
    """`texts` are the columns of words; all others hold numbers. A folded table opens on demand, a chart says the same."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    texts: frozenset[int] = frozenset({0})
    folded: bool = False


@dataclass(frozen=True)
class Chart:
    """A plotly figure, and what it shows for those who cannot see it."""

    name: str
    label: str
    figure: Figure


@dataclass(frozen=True)
class Texts:
    """Short texts under a title, such as the items nearest to an interest; `reading` is a line below the title."""

    title: str
    texts: tuple[Cell, ...]
    reading: str = ""


@dataclass(frozen=True)
class Group:
    """Several such lists that belong together, side by side."""

    title: str
    lists: tuple[Texts, ...]


@dataclass(frozen=True)
class Card:
    """One case to look at, such as a user, within a section."""

    title: str
    note: str = ""
    groups: tuple[Group, ...] = ()
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True)
class Section:
    """`reading`: one line on how to read it. `note`: what is missing, where something is. `findings`: what the figures say, in words."""

    name: str
    title: str
    reading: str
    note: str = ""
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    findings: tuple[str, ...] = ()
    cards: tuple[Card, ...] = ()


@dataclass(frozen=True)
class Page:
    """What is rendered. `summary`: the sentences to remember, under `summary_title`. `key_figures`: name and value.
    `footer`: where the same figures are as data.
    """

    title: str
    created: str
    summary_title: str
    summary: tuple[str, ...]
    sections: tuple[Section, ...]
    key_figures: tuple[tuple[str, Cell], ...] = ()
    footer: str = ""


_ROWS = 200
PointT = TypeVar("PointT")

_ARROWS = {"up": "\u25b2 ", "down": "\u25bc "}


def in_plain(cell: Cell) -> str:
    """The text of a cell where there is no colour: a sure difference has its arrow before it."""
    return f"{_ARROWS.get(cell.tone.partition(' ')[0], '')}{cell.text}"


def cell(value: Cell | str) -> Cell:
    """Text as a cell; cells stay."""
    return value if isinstance(value, Cell) else Cell(value)


def table(
    caption: str, columns: Iterable[str], rows: Iterable[Iterable[Cell | str]], *, texts: Iterable[int] = (0,), folded: bool = False
) -> Table:
    """A table of cells or plain text."""
    return Table(caption, tuple(columns), tuple(tuple(cell(value) for value in row) for row in rows), frozenset(texts), folded)


def measured(value: Interval | None, metric: str, *, more: str = "") -> Cell:
    """A mean over its interval, with as many digits as the metric deserves; `more` stands after the interval."""
    digits = words.digits(metric)
    small = ", ".join(part for part in (figures.span(value, digits), more) if part)
    return Cell(figures.decimal(value.mean if value else None, digits), small)


def difference(found: Interval | None, metric: str, higher: bool | None, *, more: str = "") -> Cell:
    """A paired difference over its interval, marked where it is sure; `more` stands after the interval."""
    digits = words.digits(metric)
    small = ", ".join(part for part in (figures.span(found, digits, sign=True), more) if part)
    return Cell(figures.signed(found.mean if found else None, digits), small, words.tone(metric, higher))


def chart(name: str, label: str, figure: Figure | None) -> tuple[Chart, ...]:
    """The chart, or none where there was nothing to draw."""
    return () if figure is None else (Chart(name, label, figure),)


def thinned(points: Sequence[PointT]) -> Sequence[PointT]:
    """Evenly spread points of a curve, as many as a table may have: more of them nobody reads."""
    return points[:: max(1, -(-len(points) // _ROWS))]
