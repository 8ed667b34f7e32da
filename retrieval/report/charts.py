"""The plots of results: systems beside each other, over the length of lists, over lambda, and indexes over their cost."""

from collections.abc import Sequence

from retrieval.evaluation.bootstrap import Interval
from retrieval.evaluation.slices import Slice
from retrieval.report.content import FrontierPoint, IndexQuality, System
from retrieval.report.plots import Figure, axis, color, dash, error_bars, figure, label, symbol


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
            "y": [number],
            "error_x": error_bars([value], color(number)),
            "marker": {"size": 12, "symbol": symbol(number), "color": color(number)},
            "hovertemplate": "%{x:.4f}<extra></extra>",
        }
        for number, system, value in shown
    ]
    # Places and not names: two names may look alike once they are cut to a length.
    named = {"tickvals": [number for number, _, _ in shown], "ticktext": [label(system.name) for _, system, _ in shown]}
    vertical = axis("", tickmode="array", autorange="reversed", **named)
    return figure(data, 90 + 42 * len(shown), axis(metric, rangemode="tozero"), vertical, showlegend=False)


def over_cutoffs(systems: Sequence[System], family: str, cutoffs: Sequence[int]) -> Figure | None:
    """A line a system: the metric of the family at every cut-off."""
    data = [line for number, system in enumerate(systems) if (line := _line(number, system, family, cutoffs)) is not None]
    horizontal = axis("n, length of the list", tickmode="array", tickvals=list(cutoffs))
    return figure(data, 400, horizontal, axis(f"{family}@n", rangemode="tozero")) if data else None


def _line(number: int, system: System, family: str, cutoffs: Sequence[int]) -> Figure | None:
    known = [n for n in cutoffs if _has(system, f"{family}@{n}")]
    values = [system.metrics[f"{family}@{n}"] for n in known]
    if not known:
        return None
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": label(system.name),
        "x": known,
        "y": [value.mean for value in values],
        "error_y": error_bars(values, color(number)),
        "line": {"color": color(number), "dash": dash(number), "width": 3 if number == 0 else 2},
        "marker": {"size": 9, "symbol": symbol(number), "color": color(number)},
        "hovertemplate": "n = %{x}: %{y:.4f}",
    }


def frontier(points: Sequence[FrontierPoint], across: str, up: str) -> Figure | None:
    """The path that accuracy and diversity take as the weight grows, a line a list builder; the run's own lists are ringed.

    Only the ringed point has its interval, as a scale: those of all would hide the lines, and they are of the same users.
    """
    shown = sorted((point for point in points if _has(point, across) and _has(point, up)), key=lambda point: point.weight)
    builders = dict.fromkeys(point.builder for point in points)
    paths = [[point for point in shown if point.builder == builder] for builder in builders]
    data = [_path(number, path, across, up, alone=len(paths) == 1) for number, path in enumerate(paths) if len(path) > 1]
    return figure(data, 420, axis(across), axis(up), showlegend=len(data) > 1) if data else None


def _path(number: int, points: Sequence[FrontierPoint], across: str, up: str, *, alone: bool) -> Figure:
    """Weights stand beside the dots of a line that is alone; those of several would cover each other."""
    horizontal, vertical = ([point.metrics[name] for point in points] for name in (across, up))
    mark, builder, paint = symbol(number), label(points[0].builder), color(number)
    return {
        "type": "scatter",
        "mode": "lines+markers+text" if alone else "lines+markers",
        "name": builder,
        "x": [value.mean for value in horizontal],
        "y": [value.mean for value in vertical],
        "error_x": error_bars(_of_chosen(points, horizontal), paint),
        "error_y": error_bars(_of_chosen(points, vertical), paint),
        "text": [f"\u03bb {point.weight:g}" for point in points],
        "textposition": "top right",
        "line": {"color": paint, "width": 2, "dash": dash(number)},
        "marker": {
            "size": [18 if point.chosen else 9 for point in points],
            "symbol": [f"{mark}-open-dot" if point.chosen else mark for point in points],
            "line": {"width": [3 if point.chosen else 0 for point in points], "color": paint},
            "color": paint,
        },
        "cliponaxis": False,
        "hovertemplate": f"{builder}, %{{text}}<br>{across} %{{x:.4f}}<br>{up} %{{y:.4f}}<extra></extra>",
    }


def _of_chosen(points: Sequence[FrontierPoint], values: Sequence[Interval]) -> list[Interval]:
    return [value if point.chosen else Interval(mean=value.mean) for point, value in zip(points, values, strict=True)]


def slices(systems: Sequence[System], about: str) -> Figure | None:
    """A line a slice of the users, or of their targets: the first system with its interval, every other as a mark without one."""
    shown = [one for one in systems[0].slices if one.about == about] if systems else []
    if not shown:
        return None
    metric = next(iter(shown[0].metrics))
    values = [one.metrics.get(metric, Interval(mean=None)) for one in shown]
    main = _slice_marks(0, systems[0], shown, metric) | {"error_x": error_bars(values, color(0))}
    main["marker"] = {"size": 11, "symbol": symbol(0), "color": color(0)}
    others = [_slice_marks(number, system, shown, metric) for number, system in enumerate(systems[1:], start=1)]
    named = {"tickvals": list(range(len(shown))), "ticktext": [label(f"{one.dimension}: {one.value}", 46) for one in shown]}
    vertical = axis("", tickmode="array", autorange="reversed", **named)
    return figure([*others, main], 130 + 24 * len(shown), axis(metric, rangemode="tozero"), vertical)


def _slice_marks(number: int, system: System, shown: Sequence[Slice], metric: str) -> Figure:
    own = {(one.dimension, one.value): one.metrics.get(metric) for one in system.slices}
    found = [own.get((one.dimension, one.value)) for one in shown]
    marker = {"size": 8, "symbol": f"{symbol(number)}-open", "color": color(number), "line": {"width": 1.5, "color": color(number)}}
    places = {"x": [None if value is None else value.mean for value in found], "y": list(range(len(shown)))}
    return {"type": "scatter", "mode": "markers", "name": label(system.name), **places, "marker": marker, "hovertemplate": "%{x:.4f}"}


def index_candidates(found: IndexQuality) -> Figure | None:
    """What the indexes of a choice find against what they cost, the chosen one ringed."""
    known = [one for one in found.candidates if one.recall is not None and one.seconds is not None]
    if len(known) < 2:
        return None
    chosen = [one.verdict == "chosen" for one in known]
    data: Figure = {
        "type": "scatter",
        "mode": "markers",
        "x": [1e6 * one.seconds for one in known if one.seconds is not None],
        "y": [one.recall for one in known],
        "text": [f"{label(one.name)}: {label(one.verdict)}" for one in known],
        "marker": {"size": [18 if it else 9 for it in chosen], "symbol": ["circle-open-dot" if it else "circle" for it in chosen]},
        "hovertemplate": "%{text}<br>%{x:.1f} us, %{y:.4f}<extra></extra>",
    }
    data["marker"] |= {"color": color(0), "line": {"width": [3 if it else 0 for it in chosen], "color": color(0)}}
    return figure([data], 400, axis("core-microseconds a user", type="log"), axis("share of the exact lists"), showlegend=False)


def _has(measured: System | FrontierPoint, metric: str) -> bool:
    value = measured.metrics.get(metric)
    return value is not None and value.mean is not None
