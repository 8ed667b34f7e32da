"""A page as text for a terminal: the summary and the tables that fit."""

from collections.abc import Iterator, Sequence

from retrieval.report.printable import clipped, printable
from retrieval.report.tables import Cell, Page, Section, Table, in_plain

_WIDEST, _TALLEST = 50, 30


def render_terminal(page: Page, names: Sequence[str]) -> str:
    """The summary, and the unfolded tables of the sections named; an arrow marks a sure difference."""
    lines = [printable(page.title), "", *map(printable, page.summary)]
    for section in page.sections:
        if section.name in names:
            lines += _section(section)
    return "\n".join(lines)


def _section(section: Section) -> Iterator[str]:
    yield from ("", printable(section.title).upper())
    if section.note:
        yield printable(section.note)
    yield from map(printable, section.findings)
    for table in section.tables:
        if not table.folded:
            yield from ("", printable(table.caption), *table_lines(table))
    for card in section.cards:
        yield from ("", printable(card.title), printable(card.note))
        for table in card.tables:
            yield from table_lines(table)


def table_lines(table: Table) -> list[str]:
    """Columns side by side, words to the left and numbers to the right; the small print stays out but for intervals."""
    rows = [list(table.columns), *([_shown(cell, place in table.texts) for place, cell in enumerate(row)] for row in table.rows[:_TALLEST])]
    rows = [[clipped(printable(text), _WIDEST) for text in row] for row in rows]
    widths = [max(len(row[place]) for row in rows) for place in range(len(table.columns))]
    lines = [
        "  ".join(_padded(text, width, place in table.texts) for place, (text, width) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    more = [f"... and {len(table.rows) - _TALLEST} more"] if len(table.rows) > _TALLEST else []
    return [line.rstrip() for line in lines] + more


def _shown(cell: Cell, word: bool) -> str:
    return cell.text if word or not cell.small else f"{in_plain(cell)} [{cell.small}]"


def _padded(text: str, width: int, word: bool) -> str:
    return text.ljust(width) if word else text.rjust(width)
