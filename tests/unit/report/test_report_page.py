"""The page: complete, closed, and deaf to what titles say."""

import base64
import hashlib
import json
import re
import sys
from html.parser import HTMLParser

import pytest

from retrieval.core.errors import ResourceError
from retrieval.report import page
from retrieval.report.content import ReportContent, Results, System, TrainingCurve, TrainingPoint
from retrieval.report.page import render_html

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
    text = render_html(content)
    document = Document(without_plotly(text))
    assert document.open == []
    assert document.misnested == []
    assert len(text.encode()) < 8_000_000
    assert text.count(page._plotly_source()[:200].replace("\r\n", "\n")) == 1


def test_nothing_is_loaded_from_anywhere(content: ReportContent) -> None:
    text = without_plotly(render_html(content))
    document = Document(text)
    for _, attributes in document.tags:
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|https?://", text)


def test_the_policy_names_exactly_the_scripts_of_the_page(content: ReportContent) -> None:
    text = render_html(content)
    policy = next(m["content"] for m in Document(without_plotly(text)).all("meta") if m.get("http-equiv"))
    scripts = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts]
    assert len(hashes) == 2
    assert f"script-src {' '.join(hashes)};" in policy
    assert policy.startswith("default-src 'none'")


def test_evil_text_stays_text_in_the_page(evil_content: ReportContent, evil: str) -> None:
    text = without_plotly(render_html(evil_content))
    document = Document(text)
    assert evil not in text
    assert "<img" not in text
    assert sum("type" not in attributes for attributes in document.all("script")) == 2
    assert not document.all("img")
    assert len(document.all("script")) == len(re.findall("<script", text))
    assert any(evil in data for tag, data in document.texts if tag == "li")
    assert document.misnested == []


def test_evil_names_stay_names_in_the_charts(evil_content: ReportContent) -> None:
    text = without_plotly(render_html(evil_content))
    figures = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, flags=re.DOTALL)
    assert len(figures) == 4
    for figure in figures:
        assert not re.search("[<>&\u2028\u2029]", figure)
        assert json.loads(figure)["data"]
    # Plotly shows some tags as markup; an escaped name has none left.
    names = [line["name"] for line in json.loads(figures[1])["data"]]
    assert all("<" not in name and "$" not in name and "&lt;/script&gt;" in name for name in names)


def test_every_plot_has_a_label_and_a_table_in_its_section(content: ReportContent) -> None:
    text = without_plotly(render_html(content))
    parts = [part for part in re.findall(r"<section.*?</section>", text, flags=re.DOTALL) if 'class="plot"' in part]
    assert len(parts) == 4
    for part in parts:
        assert "<table>" in part
        assert re.search(r'class="plot"[^>]*aria-label="[^"]+"', part)
        assert 'class="reading"' in part


def test_an_empty_report_says_what_is_missing_and_carries_no_script() -> None:
    text = render_html(ReportContent())
    assert Document(text).misnested == []
    assert "<script" not in text
    assert any("script-src 'none'" in (meta.get("content") or "") for meta in Document(text).all("meta"))
    for sentence in ("No system was measured.", "The interests were not measured.", "Nothing was trained.", "No user was sampled."):
        assert sentence in text


def test_none_is_a_dash(content: ReportContent) -> None:
    text = render_html(content)
    assert ">None<" not in text
    assert re.search(r"<td>-</td>|>-\s*</td>", text)


def test_a_system_without_metrics_is_shown_with_dashes() -> None:
    results = Results(systems=(System(name="silent", role="main"), System(name="other")), cutoffs=(50,))
    text = render_html(ReportContent(results=results))
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
    html = render_html(content)
    assert "effective rank" in html
    assert "1.2500" in html
    assert "2.5000" in html
    assert content.to_json()["training"]["points"][1]["health"] == {"effective_rank": 2.5}
