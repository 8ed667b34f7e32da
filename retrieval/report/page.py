"""One HTML page that opens from disk: no network, no other file, and no way out for text from the log."""

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import Any

from retrieval.core.errors import ResourceError
from retrieval.report import plots
from retrieval.report.printable import printable
from retrieval.report.tables import Page

_REMEDY = "pip install 'multi-interest-retrieval[report]'"


def render_html(page: Page) -> str:
    """The whole page. Its policy lets only its own two scripts run, by their hash, and nothing load.

    Raises:
        ResourceError: Jinja2 or plotly is not installed.
    """
    has_charts = any(section.charts for section in page.sections)
    # The parser of a browser turns CR LF into LF before it hashes a script.
    scripts = [text.replace("\r\n", "\n") for text in (_plotly_source(), _own_source())] if has_charts else []
    values = {
        "page": page,
        "scripts": scripts,
        "policy": " ".join(["script-src", *map(_policy_hash, scripts)]) if scripts else "script-src 'none'",
    }
    return str(_template("page.html.j2").render(values))


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
    return resources.files(__package__).joinpath("templates/page.js").read_text(encoding="utf-8")


@cache
def _template(name: str) -> Any:
    try:
        import jinja2
    except ImportError:
        raise ResourceError("Jinja2 is not installed", where="report", remedy=_REMEDY) from None
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("retrieval.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_harmless,
    )
    environment.filters |= {"chart_json": plots.chart_json}
    return environment.get_template(name)


def _harmless(value: Any) -> Any:
    """Every text that is put into the page; what a template marks as safe is a script or a figure."""
    return printable(value) if type(value) is str else value
