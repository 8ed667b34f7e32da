"""What all plots share: plain plotly figures (`data`, `layout`), ready to stand in a page.

Colours are names of CSS variables ("--series-0"); the page puts in their values, so plots follow light and dark.
The palette is Okabe and Ito's (2008), which people who are colour-blind can tell apart, darker on white where it would not
stand out (WCAG 1.4.11); symbols and dashes differ as well.
"""

import html
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from retrieval.evaluation.bootstrap import Interval
from retrieval.report.printable import clipped, printable

Figure = dict[str, Any]
SERIES = 7
_LONGEST = 40
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "dash")
_ESCAPES = {ord(mark): f"\\u{ord(mark):04x}" for mark in "<>&\u2028\u2029"}


def chart_json(figure: Figure) -> str:
    """JSON that is safe inside a script element: no character in it can end the element or start a tag."""
    return json.dumps(figure, allow_nan=False, ensure_ascii=False, separators=(",", ":")).translate(_ESCAPES)


def painted(figure: Figure, *, dark: bool = False) -> Figure:
    """The figure in the page's colours of a scheme, for plotly outside of a page: plotly.graph_objects.Figure(painted(figure))."""
    put_in = {f"--{name}": value for name, value in scheme(dark=dark).items()}
    found: Figure = json.loads(
        json.dumps(figure), object_hook=lambda values: {name: _value(value, put_in) for name, value in values.items()}
    )
    return found


def _value(value: Any, put_in: Mapping[str, str]) -> Any:
    return put_in.get(value, value) if isinstance(value, str) else value


@cache
def scheme(*, dark: bool) -> Mapping[str, str]:
    """The colours of the page, by name: "series-0", "text", "back"."""
    css = resources.files(__package__).joinpath("templates/page.css").read_text(encoding="utf-8")
    return dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", re.findall(r":root[^{]*{(.*?)}", css, re.DOTALL)[int(dark)]))


def label(name: str, longest: int = _LONGEST) -> str:
    """Plotly reads text as a kind of HTML, and between dollars as TeX; a name must stay a name."""
    return html.escape(clipped(printable(name), longest), quote=False).replace("$", "&#36;")


def color(number: int) -> str:
    """The colour of a series, by its place."""
    return f"--series-{number % SERIES}"


def symbol(number: int) -> str:
    """The symbol of a series, for those whom colour does not tell."""
    return _SYMBOLS[number % SERIES]


def dash(number: int) -> str:
    """The kind of a series' line."""
    return _DASHES[number % SERIES]


def error_bars(values: Sequence[Interval], paint: str) -> Figure:
    """Distances from the mean to the ends; a value without an interval has a bar of length zero."""
    high = [0.0 if value.high is None or value.mean is None else value.high - value.mean for value in values]
    low = [0.0 if value.low is None or value.mean is None else value.mean - value.low for value in values]
    return {"type": "data", "symmetric": False, "array": high, "arrayminus": low, "color": paint, "thickness": 1.5, "width": 5}


def axis(title: str, **more: Any) -> Figure:
    """An axis that grows its margin with its labels."""
    base = {
        "title": {"text": title, "font": {"size": 13}, "standoff": 12},
        "gridcolor": "--rule",
        "linecolor": "--rule",
        "zeroline": False,
        "automargin": True,
        "fixedrange": True,
    }
    return base | more


def figure(data: list[Figure], height: int, xaxis: Figure, yaxis: Figure, showlegend: bool = True) -> Figure:
    """A figure on the page's own background."""
    clear = "rgba(0,0,0,0)"
    layout = {
        "height": height,
        "paper_bgcolor": clear,
        "plot_bgcolor": clear,
        "font": {"color": "--text", "size": 13},
        "margin": {"l": 60, "r": 30, "t": 20, "b": 50},
        "xaxis": xaxis,
        "yaxis": yaxis,
        "showlegend": showlegend,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "hovermode": "closest",
    }
    return {"data": data, "layout": layout}
