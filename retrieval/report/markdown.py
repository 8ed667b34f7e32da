"""A page as Markdown: the summary and every table, for a terminal, a merge request or a mail."""

import re
from collections.abc import Iterator

from retrieval.report import figures
from retrieval.report.printable import printable
from retrieval.report.tables import Card, Cell, Group, Page, Section, Table, in_plain

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~#$])")
_LIST = re.compile(r"^(\d*)([-+=.)])")
_ADDRESS = re.compile(r"(?i)\b(?:www(?=\.)|(?:https?|ftp|mailto|xmpp)(?=:))|(?<!\w)@|@(?=[\w-]+\.\w)")


def render_markdown(page: Page) -> str:
    """The whole page; text from the log is escaped and stays on its line."""
    created = [f"Created {escape(page.created)}", ""] if page.created else []
    lines = [f"# {escape(page.title)}", "", *created, *(f"- {_paragraph(sentence)}" for sentence in page.summary), ""]
    for section in page.sections:
        lines += _section(section)
    return "\n".join(lines).rstrip() + "\n"


def escape(text: str) -> str:
    """Text without any Markdown or HTML in it, on one line: a pipe ends no cell, a tag starts no element, and an address or a
    name after an @ is neither a link nor calls anybody.
    """
    plain = " ".join(printable(text).split()).replace("&", "&amp;")
    escaped = _SPECIAL.sub(r"\\\1", plain).replace("\\<", "&lt;").replace("\\>", "&gt;")
    return _ADDRESS.sub(r"\g<0>&#8203;", escaped)


def _paragraph(text: str) -> str:
    """Escaped text at the beginning of a line, where a mark or a number would begin a list."""
    return _LIST.sub(r"\1\\\2", escape(text))


def _section(section: Section) -> Iterator[str]:
    yield from (f"## {escape(section.title)}", "")
    for text in (section.reading, section.note):
        if text:
            yield from (_paragraph(text), "")
    if section.findings:
        yield from (*(f"- {_paragraph(finding)}" for finding in section.findings), "")
    for table in section.tables:
        yield from _table(table)
    for card in section.cards:
        yield from _card(card)


def _table(table: Table) -> Iterator[str]:
    rules = [" --- " if number in table.texts else " ---: " for number in range(len(table.columns))]
    yield from (f"{_paragraph(table.caption)}:", "")
    yield _line([escape(column) for column in table.columns])
    yield f"|{'|'.join(rules)}|"
    for row in table.rows:
        yield _line([_cell(cell) for cell in row])
    yield ""


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    return escape(f"{in_plain(cell)} ({cell.small})" if cell.small else in_plain(cell))


def _card(card: Card) -> Iterator[str]:
    yield from (f"### {escape(card.title)}", "")
    if card.note:
        yield from (_paragraph(card.note), "")
    for group in card.groups:
        yield from _group(group)
    for table in card.tables:
        yield from _table(table)


def _group(group: Group) -> Iterator[str]:
    yield from (f"{_paragraph(group.title)}:", "")
    for one in group.lists:
        texts = "; ".join(_cell(text) for text in one.texts) or figures.MISSING
        reading = f", {escape(one.reading)}" if one.reading else ""
        yield f"- {_paragraph(one.title)}{reading}: {texts}"
    yield ""
