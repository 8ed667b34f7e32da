"""The page: complete, closed, and deaf to what titles say."""

import base64
import hashlib
import json
import re
import sys
from html.parser import HTMLParser

import pytest

from retrieval.core.errors import ResourceError
from retrieval.report import figures, page
from retrieval.report.content import InterestSummary, ItemMap, MapPoint, ReportContent, Results, System, TrainingCurve, TrainingPoint
from retrieval.report.explained import ExplainedInterest, ExplainedUser, GalleryContent, ListedItem, NamedItem
from retrieval.report.gallery_page import gallery_page
from retrieval.report.interest_sections import trend
from retrieval.report.markdown import render_markdown
from retrieval.report.page import render_html
from retrieval.report.report_page import report_page
from retrieval.report.sections import SECTIONS
from retrieval.report.settings import ReportSettings
from retrieval.report.user_cards import user_card

_VOID = {"meta", "link", "br", "img", "input", "hr"}


class Document(HTMLParser):
    """Tags with their attributes, text by element, and elements closed in the wrong order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.misnested: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()
        else:
            self.misnested.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.append((self.open[-1], data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def without_plotly(text: str) -> str:
    """The page less the library, which holds addresses and code that are not ours."""
    return text.replace(page._plotly_source().replace("\r\n", "\n"), "")


def test_the_page_is_well_formed_and_small(content: ReportContent) -> None:
    text = render_html(report_page(content))
    document = Document(without_plotly(text))
    assert document.open == []
    assert document.misnested == []
    assert len(text.encode()) < 8_000_000
    assert text.count(page._plotly_source()[:200].replace("\r\n", "\n")) == 1


def test_nothing_is_loaded_from_anywhere(content: ReportContent) -> None:
    text = without_plotly(render_html(report_page(content)))
    document = Document(text)
    for _, attributes in document.tags:
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|https?://", text)


def test_the_policy_names_exactly_the_scripts_of_the_page(content: ReportContent) -> None:
    text = render_html(report_page(content))
    policy = next(m["content"] for m in Document(without_plotly(text)).all("meta") if m.get("http-equiv"))
    scripts = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts]
    assert len(hashes) == 2
    assert f"script-src {' '.join(hashes)};" in policy
    assert policy.startswith("default-src 'none'")


def test_evil_text_stays_text_in_the_page(evil_content: ReportContent, evil: str) -> None:
    text = without_plotly(render_html(report_page(evil_content)))
    document = Document(text)
    assert evil not in text
    assert "<img" not in text
    assert sum("type" not in attributes for attributes in document.all("script")) == 2
    assert not document.all("img")
    assert len(document.all("script")) == len(re.findall("<script", text))
    assert any(figures.text(evil) in data for tag, data in document.texts if tag == "li")
    assert document.misnested == []


def test_marks_without_a_shape_are_shown_as_such(evil_content: ReportContent) -> None:
    text = without_plotly(render_html(report_page(evil_content)))
    assert not re.search("[\u0000-\u0008\u000b-\u001f\u007f\u2028\u202a-\u202e\u2066-\u2069]", text)
    assert "\ufffdgnp.exe\ufffd" in text
    assert "{{7*7}}" in text


def test_a_very_long_title_is_cut_and_joiners_stay() -> None:
    assert figures.text("y" * 10_000) == "y" * 159 + "\u2026"
    assert figures.text("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645") == "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    assert figures.text("a\r\n\tb") == "a   b"


def test_evil_names_stay_names_in_the_charts(evil_content: ReportContent) -> None:
    text = without_plotly(render_html(report_page(evil_content)))
    found = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, flags=re.DOTALL)
    assert len(found) == 10
    for figure in found:
        assert not re.search("[<>&\u2028\u2029]", figure)
        assert json.loads(figure)["data"]
    # Plotly shows some tags as markup; an escaped name has none left.
    names = [line["name"] for line in json.loads(found[1])["data"]]
    assert all("<" not in name and "$" not in name and "&lt;/script&gt;" in name for name in names)
    assert "\\u202e" not in "".join(found)


def test_every_plot_has_a_label_and_a_table_in_its_section(content: ReportContent) -> None:
    text = without_plotly(render_html(report_page(content)))
    parts = [part for part in re.findall(r"<section.*?</section>", text, flags=re.DOTALL) if 'class="plot"' in part]
    assert len(parts) == 8
    for part in parts:
        assert "<table>" in part
        assert re.search(r'class="plot"[^>]*aria-label="[^"]+"', part)
        assert 'class="reading"' in part


def test_an_empty_report_says_what_is_missing_and_carries_no_script() -> None:
    text = render_html(report_page(ReportContent()))
    assert Document(text).misnested == []
    assert "<script" not in text
    assert any("script-src 'none'" in (meta.get("content") or "") for meta in Document(text).all("meta"))
    said = (
        "No system was measured.",
        "The interests were not measured.",
        "Nothing was trained.",
        "No user was sampled.",
        "No map was drawn.",
        "Nothing is re-scored: candidates keep the order of recall.",
    )
    for sentence in (*said, "The index was not measured.", "The data set was not described."):
        assert sentence in text


def test_none_is_a_dash(content: ReportContent) -> None:
    text = render_html(report_page(content))
    assert ">None<" not in text
    assert re.search(r"<td>-</td>|>-\s*</td>", text)


def test_a_system_without_metrics_is_shown_with_dashes() -> None:
    results = Results(systems=(System(name="silent", role="main"), System(name="other")), cutoffs=(50,))
    text = render_html(report_page(ReportContent(results=results)))
    assert "silent" in text
    assert "The run has no value for its primary metric recall@50." in text


@pytest.mark.parametrize(("module", "loader", "called"), [("plotly.offline", page._plotly_source, ()), ("jinja2", page._template, ("x",))])
def test_a_missing_library_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch, module: str, loader: object, called: tuple) -> None:
    loader.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ResourceError, match=r"multi-interest-retrieval\[report\]"):
        loader(*called)
    loader.cache_clear()


def test_the_health_of_the_interests_is_told_for_every_step() -> None:
    points = tuple(TrainingPoint(step=n, loss=1.0 / n, validation=0.1 * n, health={"effective_rank": 1.25 * n}) for n in (1, 2))
    content = ReportContent(training=TrainingCurve(metric="recall@50", points=points))
    html = render_html(report_page(content))
    assert "effective rank" in html
    assert "1.2500" in html
    assert "2.5000" in html
    assert content.to_json()["training"]["points"][1]["health"] == {"effective_rank": 2.5}


def test_every_section_is_in_the_navigation_and_every_builder_is_one(content: ReportContent) -> None:
    names = [section.name for section in report_page(content).sections]
    assert len(set(names)) == len(names) == len(SECTIONS)
    text = without_plotly(render_html(report_page(content)))
    assert re.findall(r'<li><a href="#([a-z]+)">', text) == names
    assert re.findall(r'<section id="([a-z]+)"', text) == names


def test_the_way_of_the_interests_is_told_in_a_sentence(content: ReportContent) -> None:
    steps = ((10, 0.99, 1.02), (20, 0.5, 1.5), (30, 0.333, 2.5))
    points = tuple(TrainingPoint(step=n, health={"interest_cosine": cosine, "effective_rank": rank}) for n, cosine, rank in steps)
    text = render_html(report_page(content.model_copy(update={"training": TrainingCurve(points=points)})))
    said = "the cosine between interests went from 0.99 to 0.33 and the effective rank went from 1.02 to 2.50"
    assert f"Between step 10 and step 30 {said}." in text
    assert list(trend(TrainingCurve(points=points[:1]))) == []


def test_collapsed_interests_are_named_in_words(content: ReportContent) -> None:
    finding = "Interests 0 and 2 are nearly the same for most users (cosine 0.97)."
    interests = content.interests.model_copy(update={"findings": (finding,)})
    assert f"<li>{finding}</li>" in render_html(report_page(content.model_copy(update={"interests": interests})))


def test_the_gallery_shows_hits_drivers_and_what_diversity_changed(gallery: GalleryContent, evil: str) -> None:
    text = render_html(gallery_page(gallery))
    document = Document(text)
    assert document.misnested == []
    assert "<script" not in text
    assert evil not in text
    assert "mmr, lambda 0.5" in text
    assert "2 hidden items, of which 1 stand in the 2 shown, 0 without the diversity step" in text
    assert "driven by, as the encoder weighs its events" in text
    assert "driven by the events nearest to it" in text
    assert text.count("\u2713 plain") == 1
    markdown = render_markdown(gallery_page(gallery))
    assert "### User plain" in markdown
    assert "<" not in markdown


def test_a_list_that_diversity_leaves_alone_is_shown_once() -> None:
    item = ListedItem(item_id=1, title="one", rank=1, score=0.5, interest=0)
    card = user_card(ExplainedUser(user=1, events=2, items=(item,), by_score=(item,)))
    assert "leaves it as it is" in card.tables[0].caption
    assert "by score alone" not in card.tables[0].columns
    assert card.note == "2 visible events."


def test_the_largest_report_that_can_be_asked_for_stays_below_8_mb(content: ReportContent) -> None:
    title = "\u6771\u4eac" * 500
    item = NamedItem(item_id=1, title=title, category="c")
    listed = [ListedItem(item_id=n, title=title, rank=n, score=1.0, interest=0, hit=False, driven_by=(title,) * 3) for n in range(1, 51)]
    interest = ExplainedInterest(interest=0, items=9, nearest=(item,) * 5, drivers=(item,) * 3)
    user = ExplainedUser(user=1, events=9, interests=(interest,) * 8, items=listed, by_score=listed[::-1])
    most = {
        name: max(one.le for one in field.metadata if hasattr(one, "le"))
        for name, field in ReportSettings.model_fields.items()
        if name != "seed"
    }
    assert set(most) == {"users", "top", "map_items"}
    points = (MapPoint(kind="item", x=1.234, y=-5.678, label=title, category="c"),) * most["map_items"]
    interests = InterestSummary(item_map=ItemMap(points=points), sample_users=(user,) * most["users"])
    assert most["top"] == len(listed)
    assert len(render_html(report_page(content.model_copy(update={"interests": interests}))).encode()) < 8_000_000
