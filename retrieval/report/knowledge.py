"""The section on what models may know, and on whether they know more."""

from retrieval.evaluation.leaks.findings import KINDS
from retrieval.report import figures
from retrieval.report.content import ReportContent
from retrieval.report.tables import Cell, Rows, Section, Table, table

_TONES = {"clean": "good", "leak": "bad", "cannot be told": "quiet", "not applicable": "quiet"}


def knowledge(content: ReportContent) -> Section:
    """The split's promises in words, the leak checker's verdict and findings, and the shuffle test."""
    known = content.knowledge
    tables: list[Table] = []
    if known.may_know:
        tables.append(table("What a model may know", ["subject", "what"], [[*pair] for pair in known.may_know.items()], texts=(0, 1)))
    if known.leaks:
        found: Rows = [
            [Cell(leak.kind, KINDS.get(leak.kind, ""), "bad"), leak.where, figures.count(leak.rows), leak.example] for leak in known.leaks
        ]
        tables.append(table("Leaks", ["kind", "where", "rows", "such as"], found, texts=(0, 1, 3)))
    if known.checked:
        looked: Rows = [[Cell(kind, KINDS.get(kind, "")), Cell(status, tone=_TONES[status])] for kind, status in known.checked.items()]
        tables.append(table("What the leak checker looked for", ["kind", "result"], looked, texts=(0, 1), folded=True))
    said = tuple(sentence for sentence in (known.verdict, known.sequential, *known.remarks) if sentence)
    note = "" if known.verdict else "Nobody looked for leaks."
    reading = "What was allowed to reach training, and whether anything else did. Figures of a leaky split are too good to be true."
    return Section("knowledge", "What models may know", reading, note, (), tuple(tables), said)
