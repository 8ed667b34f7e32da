"""The pages as somebody reads them who cannot see them, prints them, or sees colours differently; without a browser."""

import re
from importlib import resources
from itertools import pairwise
from xml.etree.ElementTree import Element

import html5lib
import pytest

from retrieval.report import plots
from retrieval.report.compare_page import compare_page
from retrieval.report.gallery_page import gallery_page
from retrieval.report.page import _own_source, _plotly_source, render_html
from retrieval.report.report_page import report_page
from retrieval.report.tables import Page

CSS = resources.files("retrieval.report").joinpath("templates/page.css").read_text(encoding="utf-8")


def parsed(page: Page) -> Element:
    """The page as a browser's parser sees it; anything that the standard calls an error is one."""
    text = render_html(page).replace(_plotly_source().replace("\r\n", "\n"), "").replace(_own_source(), "")
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(text)


PAGES = {
    "content": report_page,
    "evil_content": report_page,
    "gallery": gallery_page,
    "comparison": compare_page,
    "evil_comparison": compare_page,
}


@pytest.fixture(params=PAGES)
def tree(request: pytest.FixtureRequest) -> Element:
    return parsed(PAGES[request.param](request.getfixturevalue(request.param)))


def text_of(element: Element) -> str:
    return " ".join("".join(element.itertext()).split())


def test_the_language_and_the_title_are_given(tree: Element) -> None:
    assert tree.get("lang") == "en"
    assert text_of(tree.find("head/title"))


def test_headings_skip_no_level_and_have_text(tree: Element) -> None:
    levels = [int(element.tag[1]) for element in tree.iter() if re.fullmatch("h[1-6]", str(element.tag))]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(text_of(element) for element in tree.iter() if re.fullmatch("h[1-6]", str(element.tag)))


def test_ids_are_unique_and_every_reference_finds_one(tree: Element) -> None:
    ids = [element.get("id") for element in tree.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    wanted = [element.get("href", "#")[1:] for element in tree.iter("a")] + [e.get("aria-labelledby") for e in tree.iter()]
    assert {name for name in wanted if name} <= set(ids)


def test_landmarks_and_the_way_past_the_navigation_are_there(tree: Element) -> None:
    assert [len(list(tree.iter(name))) for name in ("header", "main", "nav")] == [1, 1, 1]
    assert tree.find("body")[0].tag == "a"
    assert tree.find("body")[0].get("href") == "#figures"
    assert all(section.get("aria-labelledby") for section in tree.iter("section"))


def test_what_is_a_picture_says_what_it_shows(tree: Element) -> None:
    assert not list(tree.iter("img"))
    assert all(element.get("aria-label") for element in tree.iter() if element.get("role") == "img")


def test_tables_have_captions_and_heads_of_rows_and_columns(tree: Element) -> None:
    tables = list(tree.iter("table"))
    assert tables
    for table in tables:
        assert text_of(table.find("caption"))
        head = table.findall("thead/tr/th")
        assert all(cell.get("scope") == "col" and text_of(cell) for cell in head)
        for row in table.findall("tbody/tr"):
            assert row[0].tag == "th"
            assert row[0].get("scope") == "row"
            assert len(row) == len(head)


def test_what_scrolls_can_be_reached_by_the_keyboard(tree: Element) -> None:
    boxes = [element for element in tree.iter("div") if element.get("class") == "scroll"]
    assert len(boxes) == len(list(tree.iter("table")))
    assert all((box.get("tabindex"), box.get("role")) == ("0", "region") and box.get("aria-label") for box in boxes)


def test_nothing_is_addressed_outside_of_the_page(tree: Element) -> None:
    for element in tree.iter():
        assert "src" not in element.attrib
        assert not [name for name in element.attrib if str(name).startswith("on")]
        assert (element.get("href") or "#").startswith("#")
    assert not re.search(r"@import|url\(|https?:", CSS + _own_source())


def test_a_tone_is_never_told_by_colour_alone(tree: Element) -> None:
    for element in tree.iter():
        tones = set((element.get("class") or "").split()) & {"good", "bad"}
        arrows = set((element.get("class") or "").split()) & {"up", "down"}
        assert not tones or arrows or re.search(r"good|hit|held|failed|out of range", text_of(element))
    for tone in ("up", "down"):
        assert re.search(rf"\.{tone}::before {{ content: ", CSS)


def _luminance(color: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    brighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def test_the_measure_of_contrast_is_that_of_the_standard() -> None:
    assert _contrast("#000000", "#ffffff") == pytest.approx(21)
    assert _contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_and_marks_stand_out_from_what_is_behind_them(dark: bool) -> None:
    colors = plots.scheme(dark=dark)
    for name in ("text", "faint", "link", "good", "bad"):
        assert min(_contrast(colors[name], colors[back]) for back in ("back", "panel")) >= 4.5, name
    for number in range(7):
        assert _contrast(colors[f"series-{number}"], colors["back"]) >= 3.0, number
