"""What models may know, on the page."""

from retrieval.evaluation.leaks.findings import Finding, LeakReport
from retrieval.report.content import KnowledgeSummary, ReportContent
from retrieval.report.knowledge import knowledge
from retrieval.report.verdict import verdict

LEAK = Finding(kind="event-after-cut", where="training events", rows=1200, example="user '<b>x', item 3 at 9")


def content(*leaks: Finding) -> ReportContent:
    found = LeakReport(findings=leaks, checked={"event-after-cut": "leak" if leaks else "clean", "target-retimed": "not applicable"})
    return ReportContent(
        knowledge=KnowledgeSummary(
            may_know={"events": "before noon"}, sequential="A little.", verdict=found.verdict(), leaks=leaks, checked=dict(found.checked)
        )
    )


def test_a_clean_split_says_so() -> None:
    section = knowledge(content())
    assert section.findings == ("No leak: 1 kinds were looked for.", "A little.")
    assert [table.caption for table in section.tables] == ["What a model may know", "What the leak checker looked for"]
    assert "leak" not in verdict(content())[0]


def test_a_leak_is_named_first_of_all() -> None:
    section = knowledge(content(LEAK))
    row = section.tables[1].rows[0]
    assert [cell.text for cell in row] == ["event-after-cut", "training events", "1,200", LEAK.example]
    assert verdict(content(LEAK))[0].startswith("The data leak, so do not believe this: 1 of 1 kinds of leaks were found")


def test_nobody_looked() -> None:
    assert knowledge(ReportContent()).note == "Nobody looked for leaks."
