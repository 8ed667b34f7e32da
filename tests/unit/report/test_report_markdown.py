"""Markdown: tables that stay tables; and the plain data both renderings are made from."""

import json
import re
from collections import Counter

import jsonschema
import pytest
from markdown_it import MarkdownIt

from retrieval.report import figures
from retrieval.report.content import FrontierPoint, HealthFigure, ReportContent
from retrieval.report.markdown import escape, render_markdown
from retrieval.report.report_page import report_page, report_schema
from retrieval.report.tables import Page, Section


def _cells(line: str) -> int:
    return len(re.findall(r"(?<!\\)\|", line)) - 1


def test_every_row_of_a_table_has_as_many_cells_as_its_head(evil_content: ReportContent) -> None:
    blocks = re.findall(r"(?:^\|.*\n)+", render_markdown(report_page(evil_content)), flags=re.MULTILINE)
    assert len(blocks) >= 8
    for block in blocks:
        assert len({_cells(line) for line in block.splitlines()}) == 1


def test_pipes_tags_and_line_ends_are_escaped() -> None:
    assert escape("a|b\nc") == r"a\|b c"
    assert escape("<b>&lt;") == "&lt;b&gt;&amp;lt;"
    assert escape(r"x\|y") == r"x\\\|y"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see http://evil.example now", "see http&#8203;://evil.example now"),
        ("WWW.evil.example", "WWW&#8203;.evil.example"),
        ("@everyone", "@&#8203;everyone"),
        ("me@evil.example", "me@&#8203;evil.example"),
        ("recall@50", "recall@50"),
        ("[a](javascript:b)", r"\[a\](javascript:b)"),
        ("\u202egnp", "\ufffdgnp"),
    ],
)
def test_addresses_are_no_links_and_nobody_is_called(text: str, expected: str) -> None:
    assert escape(text) == expected


@pytest.mark.parametrize("title", ["- x", "1. x", "12) x"])
def test_a_text_begins_no_list(title: str) -> None:
    page = Page("t", "", "s", (title,), (Section("a", title, title, findings=(title,)),))
    lines = render_markdown(page).splitlines()
    guarded = title.replace("- ", r"\- ").replace("1.", r"1\.").replace("12)", r"12\)")
    assert lines.count(f"- {guarded}") == 2
    assert guarded in lines


def test_evil_text_makes_no_element(evil_content: ReportContent) -> None:
    text = render_markdown(report_page(evil_content))
    assert "<" not in text
    assert "\u2028" not in text


def test_a_reader_of_markdown_finds_the_same_structure_whatever_titles_say(evil_content: ReportContent, content: ReportContent) -> None:
    reader = MarkdownIt("commonmark").enable("table")
    kinds = [
        [token.type for block in reader.parse(render_markdown(report_page(each))) for token in [block, *(block.children or [])]]
        for each in (evil_content, content)
    ]
    assert set(kinds[0]) == set(kinds[1])
    assert Counter(kinds[0]) == Counter(kinds[1])
    assert not set(kinds[0]) & {"link_open", "image", "html_block", "html_inline", "code_inline", "fence", "code_block", "em_open"}


def test_the_sections_and_the_verdict_are_there(content: ReportContent) -> None:
    text = render_markdown(report_page(content))
    assert text.startswith("# plain\n")
    assert "- plain finds 30.0 %" in text
    for title in (
        "Headline figures",
        "Recall over n",
        "Accuracy against diversity",
        "Interest health",
        "Data quality",
        "Training",
        "Sample users",
    ):
        assert f"\n## {title}\n" in text
    assert "| 56,789 |" in text
    assert "1 min 15 s | 1.25 GB" in text


def test_an_empty_report_renders() -> None:
    assert "No system was measured." in render_markdown(report_page(ReportContent()))


def test_json_says_its_schema_and_reads_back(content: ReportContent) -> None:
    values = json.loads(json.dumps(content.to_json(), allow_nan=False))
    assert values["schema_version"] == 1
    assert ReportContent.model_validate(values) == content


def test_json_keeps_to_its_schema(content: ReportContent, evil_content: ReportContent) -> None:
    schema = json.loads(json.dumps(report_schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    for values in (content.to_json(), evil_content.to_json(), ReportContent().to_json()):
        check.validate(json.loads(json.dumps(values)))
    for broken in ({**content.to_json(), "unknown": 1}, {**content.to_json(), "frontier": [{"weight": "much"}]}, {"title": 3}):
        assert not check.is_valid(broken)


def test_a_frontier_metric_without_a_cutoff_gets_the_length_of_the_lists() -> None:
    point = FrontierPoint(weight=0.1, n=20, metrics={"recall": {"mean": 0.5}, "ndcg@10": {"mean": 0.4}})
    assert set(point.metrics) == {"recall@20", "ndcg@10"}


@pytest.mark.parametrize(
    ("figure", "expected"),
    [
        (HealthFigure(label="a", value=0.5, at_most=0.5), True),
        (HealthFigure(label="a", value=0.6, at_most=0.5), False),
        (HealthFigure(label="a", value=1.0, at_least=1.2), False),
        (HealthFigure(label="a", value=1.0), None),
        (HealthFigure(label="a", at_most=0.5), None),
    ],
)
def test_health_is_judged_by_its_bounds(figure: HealthFigure, expected: bool | None) -> None:
    assert figure.healthy is expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (figures.decimal(None), "-"),
        (figures.decimal(-0.00001), "0.0000"),
        (figures.decimal(-0.25), "\u22120.2500"),
        (figures.signed(0.25), "+0.2500"),
        (figures.signed(0.0), "0.0000"),
        (figures.signed(None), "-"),
        (figures.count(1000209), "1,000,209"),
        (figures.percent(0.251), "25.1\u00a0%"),
        (figures.duration(0.34), "0.3 s"),
        (figures.duration(59.99), "1 min 00 s"),
        (figures.duration(252.0), "4 min 12 s"),
        (figures.duration(7500.0), "2 h 05 min"),
        (figures.size(1_250_000_000), "1.25 GB"),
        (figures.size(412_000_000), "412 MB"),
        (figures.text(None), "-"),
        (figures.text(""), "-"),
        (figures.text(0), "0"),
    ],
)
def test_numbers_as_text(written: str, expected: str) -> None:
    assert written == expected
