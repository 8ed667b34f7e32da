"""The plots as plain plotly figures (`data`, `layout`), ready to stand in a page.

Colours are names of CSS variables ("--series-0"); the page puts in their values, so plots follow light and dark.
The palette is Okabe and Ito's (2008), which people who are colour-blind can tell apart; symbols differ as well.
"""

import html
import json
from collections.abc import Sequence
from typing import Any

from retrieval.evaluation.bootstrap import Interval
from retrieval.report.content import FrontierPoint, System, TrainingCurve

Figure = dict[str, Any]
_SERIES = 7
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "dash")
_ESCAPES = {ord(mark): f"\\u{ord(mark):04x}" for mark in "<>&\u2028\u2029"}


def chart_json(figure: Figure) -> str:
    """JSON that is safe inside a script element: no character in it can end the element or start a tag."""
    return json.dumps(figure, allow_nan=False, separators=(",", ":")).translate(_ESCAPES)


def dots(systems: Sequence[System], metric: str) -> Figure | None:
    """One dot a system with its interval, in the order given; None where no system has the metric."""
    shown = [(number, system, system.metrics[metric]) for number, system in enumerate(systems) if _has(system, metric)]
    if not shown:
        return None
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": [value.mean],
            "y": [_label(system.name)],
            "error_x": _error([value], _color(number)),
            "marker": {"size": 12, "symbol": _symbol(number), "color": _color(number)},
            "hovertemplate": "%{x:.4f}<extra></extra>",
        }
        for number, system, value in shown
    ]
    names = [_label(system.name) for _, system, _ in reversed(shown)]
    vertical = {"type": "category", "categoryorder": "array", "categoryarray": names}
    return _figure(data, 90 + 42 * len(shown), _axis(metric, rangemode="tozero"), _axis("", **vertical), showlegend=False)


def over_cutoffs(systems: Sequence[System], family: str, cutoffs: Sequence[int]) -> Figure | None:
    """A line a system: the metric of the family at every cut-off."""
    data = [line for number, system in enumerate(systems) if (line := _line(number, system, family, cutoffs)) is not None]
    horizontal = _axis("n, length of the list", tickmode="array", tickvals=list(cutoffs))
    return _figure(data, 400, horizontal, _axis(f"{family}@n", rangemode="tozero")) if data else None


def _line(number: int, system: System, family: str, cutoffs: Sequence[int]) -> Figure | None:
    known = [n for n in cutoffs if _has(system, f"{family}@{n}")]
    values = [system.metrics[f"{family}@{n}"] for n in known]
    if not known:
        return None
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": _label(system.name),
        "x": known,
        "y": [value.mean for value in values],
        "error_y": _error(values, _color(number)),
        "line": {"color": _color(number), "dash": _DASHES[number % _SERIES], "width": 3 if number == 0 else 2},
        "marker": {"size": 9, "symbol": _symbol(number), "color": _color(number)},
        "hovertemplate": "n = %{x}: %{y:.4f}",
    }


def frontier(points: Sequence[FrontierPoint], across: str, up: str) -> Figure | None:
    """The path that recall and diversity take as the weight grows, a line a list builder; the run's own lists are ringed."""
    shown = sorted((point for point in points if _has(point, across) and _has(point, up)), key=lambda point: point.weight)
    builders = dict.fromkeys(point.builder for point in points)
    paths = [[point for point in shown if point.builder == builder] for builder in builders]
    data = [_path(number, path, across, up, alone=len(paths) == 1) for number, path in enumerate(paths) if len(path) > 1]
    return _figure(data, 400, _axis(across), _axis(up), showlegend=len(data) > 1) if data else None


def _path(number: int, points: Sequence[FrontierPoint], across: str, up: str, *, alone: bool) -> Figure:
    """Weights stand beside the dots of a line that is alone; those of several would cover each other."""
    horizontal, vertical = [point.metrics[across] for point in points], [point.metrics[up] for point in points]
    symbol, builder = _symbol(number), _label(points[0].builder)
    return {
        "type": "scatter",
        "mode": "lines+markers+text" if alone else "lines+markers",
        "name": builder,
        "x": [value.mean for value in horizontal],
        "y": [value.mean for value in vertical],
        "error_x": _error(horizontal, "--faint"),
        "error_y": _error(vertical, "--faint"),
        "text": [f"\u03bb {point.weight:g}" for point in points],
        "textposition": "top right",
        "line": {"color": _color(number), "width": 2, "dash": _DASHES[number % _SERIES]},
        "marker": {
            "size": [18 if point.chosen else 9 for point in points],
            "symbol": [f"{symbol}-open-dot" if point.chosen else symbol for point in points],
            "line": {"width": [3 if point.chosen else 0 for point in points], "color": _color(number)},
            "color": _color(number),
        },
        "cliponaxis": False,
        "hovertemplate": f"{builder}, %{{text}}<br>{across} %{{x:.4f}}<br>{up} %{{y:.4f}}<extra></extra>",
    }


def training(curve: TrainingCurve) -> Figure | None:
    """Loss above, validation below, over the same steps."""
    loss = [(point.step, point.loss) for point in curve.points if point.loss is not None]
    validation = [(point.step, point.validation) for point in curve.points if point.validation is not None]
    data = [_steps(loss, "y", _color(1))] * bool(loss) + [_steps(validation, "y2", _color(0))] * bool(validation)
    if not data:
        return None
    figure = _figure(data, 440, _axis("step", anchor="y2"), _axis("loss", domain=[0.56, 1.0]), showlegend=False)
    figure["layout"]["yaxis2"] = _axis(_label(curve.metric), domain=[0.0, 0.44])
    return figure


def _steps(points: Sequence[tuple[int, float]], axis: str, color: str) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(points) <= 60 else "lines",
        "x": [step for step, _ in points],
        "y": [value for _, value in points],
        "yaxis": axis,
        "line": {"color": color, "width": 2},
        "marker": {"size": 6, "color": color},
        "hovertemplate": "step %{x}: %{y:.4f}<extra></extra>",
    }


def _has(measured: System | FrontierPoint, metric: str) -> bool:
    value = measured.metrics.get(metric)
    return value is not None and value.mean is not None


def _error(values: Sequence[Interval], color: str) -> Figure:
    """Distances from the mean to the ends; a value without an interval has a bar of length zero."""
    high = [0.0 if value.high is None or value.mean is None else value.high - value.mean for value in values]
    low = [0.0 if value.low is None or value.mean is None else value.mean - value.low for value in values]
    return {"type": "data", "symmetric": False, "array": high, "arrayminus": low, "color": color, "thickness": 1.5, "width": 5}


def _label(name: str) -> str:
    """Plotly reads text as a kind of HTML, and between dollars as TeX; a name must stay a name."""
    return html.escape(name, quote=False).replace("$", "&#36;")


def _color(number: int) -> str:
    return f"--series-{number % _SERIES}"


def _symbol(number: int) -> str:
    return _SYMBOLS[number % _SERIES]


def _axis(title: str, **more: Any) -> Figure:
    base = {
        "title": {"text": title, "font": {"size": 13}, "standoff": 12},
        "gridcolor": "--rule",
        "linecolor": "--rule",
        "zeroline": False,
        "automargin": True,
        "fixedrange": True,
    }
    return base | more


def _figure(data: list[Figure], height: int, xaxis: Figure, yaxis: Figure, showlegend: bool = True) -> Figure:
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
