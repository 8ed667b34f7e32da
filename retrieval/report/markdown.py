"""The report as Markdown: the verdict and every table, for a terminal, a merge request or a mail."""

import re
from collections.abc import Iterator

from retrieval.report import figures
from retrieval.report.content import ReportContent, SampleUser
from retrieval.report.sections import sections, user_table
from retrieval.report.tables import Cell, Section, Table
from retrieval.report.verdict import verdict

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~#$])")


def render_markdown(content: ReportContent) -> str:
    """The whole report; text from the log is escaped and stays on its line."""
    created = [f"Created {escape(content.created)}", ""] if content.created else []
    lines = [f"# {escape(content.title)}", "", *created, *(f"- {escape(sentence)}" for sentence in verdict(content)), ""]
    for section in sections(content):
        lines += _section(section)
    return "\n".join(lines).rstrip() + "\n"


def escape(text: str) -> str:
    """Text without any Markdown or HTML in it, on one line: a pipe ends no cell, a tag starts no element."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()).replace("&", "&amp;")).replace("\\<", "&lt;").replace("\\>", "&gt;")


def _section(section: Section) -> Iterator[str]:
    yield from (f"## {escape(section.title)}", "", escape(section.reading), "")
    if section.note:
        yield from (escape(section.note), "")
    for table in section.tables:
        yield from _table(table)
    for user in section.users:
        yield from _user(user)


def _table(table: Table) -> Iterator[str]:
    rules = [" --- " if number in table.texts else " ---: " for number in range(len(table.columns))]
    yield from (f"{escape(table.caption)}:", "")
    yield _line([escape(column) for column in table.columns])
    yield f"|{'|'.join(rules)}|"
    for row in table.rows:
        yield _line([_cell(cell) for cell in row])
    yield ""


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    return escape(f"{cell.text} ({cell.small})" if cell.small else cell.text)


def _user(user: SampleUser) -> Iterator[str]:
    yield from (f"### User {escape(str(user.user))}", "")
    yield from (f"History, oldest first: {_titles(user.history)}", "")
    for interest in user.interests:
        yield f"- Interest {interest.number}: {_titles(interest.nearest)}"
    yield ""
    if user.items:
        yield from _table(user_table(user))


def _titles(titles: tuple[str | None, ...]) -> str:
    return "; ".join(escape(figures.text(title)) for title in titles) or figures.MISSING
