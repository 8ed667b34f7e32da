"""One HTML page that opens from disk: no network, no other file, and no way out for text from the log."""

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import Any

from retrieval.core.errors import ResourceError
from retrieval.report import charts, figures, words
from retrieval.report.content import ReportContent
from retrieval.report.sections import sections, user_table
from retrieval.report.tables import Cell, measured
from retrieval.report.verdict import verdict

_REMEDY = "pip install 'multi-interest-retrieval[report]'"
_FIGURES = ("ndcg", "hr", "diversity")


def render_html(content: ReportContent) -> str:
    """The whole page. Its policy lets only its own two scripts run, by their hash, and nothing load.

    Raises:
        ResourceError: Jinja2 or plotly is not installed.
    """
    parts = sections(content)
    has_charts = any(section.charts for section in parts)
    # The parser of a browser turns CR LF into LF before it hashes a script.
    scripts = [text.replace("\r\n", "\n") for text in (_plotly_source(), _own_source())] if has_charts else []
    values = {
        "content": content,
        "verdict": verdict(content),
        "key_figures": key_figures(content),
        "sections": parts,
        "scripts": scripts,
        "policy": " ".join(["script-src", *map(_policy_hash, scripts)]) if scripts else "script-src 'none'",
        "figures": figures,
    }
    return str(_template("report.html.j2").render(values))


def key_figures(content: ReportContent) -> list[tuple[str, Cell]]:
    """The few figures to remember: the primary metric, three others at its cut-off, coverage."""
    main, n = content.results.main, words.cutoff(content.results.primary)
    if main is None:
        return []
    names = dict.fromkeys([content.results.primary, *(f"{name}@{n}" for name in _FIGURES)])
    found = [(name, measured(main.metrics[name], name)) for name in names if name in main.metrics]
    share = main.overall.get(f"coverage@{n}")
    return found if share is None else [*found, (f"coverage@{n}", Cell(figures.decimal(share), "of the catalog"))]


def _policy_hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


@cache
def _plotly_source() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise ResourceError("plotly is not installed", where="report", remedy=_REMEDY) from None
    return str(get_plotlyjs())


def _own_source() -> str:
    return resources.files(__package__).joinpath("templates/report.js").read_text(encoding="utf-8")


@cache
def _template(name: str) -> Any:
    try:
        import jinja2
    except ImportError:
        raise ResourceError("Jinja2 is not installed", where="report", remedy=_REMEDY) from None
    loader = jinja2.PackageLoader("retrieval.report", "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"chart_json": charts.chart_json, "user_table": user_table}
    return environment.get_template(name)
