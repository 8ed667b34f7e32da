"""The plots of a model: how it and its interests did while it was trained, and its items as a map."""

from collections.abc import Mapping, Sequence

from retrieval.report import words
from retrieval.report.content import ItemMap, MapPoint, TrainingCurve
from retrieval.report.plots import SERIES, Figure, axis, color, dash, figure, label, symbol

_PANELS = (("interest_cosine", "largest_share"), ("effective_rank", "contributing_interests", "dead_interests"))

_SIDES = ("top center", "bottom center", "middle right", "middle left", "top right", "bottom left")


def training(curve: TrainingCurve) -> Figure | None:
    """Loss above, validation below, over the same steps."""
    loss = [(point.step, point.loss) for point in curve.points if point.loss is not None]
    validation = [(point.step, point.validation) for point in curve.points if point.validation is not None]
    data = [_steps(loss, "y", color(1))] * bool(loss) + [_steps(validation, "y2", color(0))] * bool(validation)
    if not data:
        return None
    return _over(figure(data, 440, axis("step", anchor="y2"), axis("loss", domain=[0.56, 1.0]), showlegend=False), label(curve.metric))


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


def _over(upper: Figure, title: str) -> Figure:
    """The figure with a second panel below its own."""
    upper["layout"]["yaxis2"] = axis(title, domain=[0.0, 0.44])
    return upper


def health_over_training(curve: TrainingCurve) -> Figure | None:
    """How alike interests are above, how many of them are there below, over the same steps."""
    data = [
        _health_line(curve, name, number, f"y{panel + 1 if panel else ''}")
        for number, (panel, name) in enumerate((panel, name) for panel, names in enumerate(_PANELS) for name in names)
        if any(name in point.health for point in curve.points)
    ]
    if not data:
        return None
    upper = axis("share or cosine", domain=[0.56, 1.0], rangemode="tozero")
    return _over(figure(data, 480, axis("step", anchor="y2"), upper), "interests")


def _health_line(curve: TrainingCurve, name: str, number: int, vertical: str) -> Figure:
    points = [(point.step, point.health[name]) for point in curve.points if name in point.health]
    line = _steps(points, vertical, color(number))
    line["line"]["dash"], line["marker"]["symbol"] = dash(number), symbol(number)
    return {**line, "name": words.health(name), "hovertemplate": "step %{x}: %{y:.3f}"}


def item_map(found: ItemMap) -> Figure | None:
    """Items by category, then what the user did and the user's interests, each over the ones before."""
    if not found.points:
        return None
    largest = [category.category for category in found.categories[: SERIES - 1]]
    items = [point for point in found.points if point.kind == "item"]
    data = [_cloud([point for point in items if point.category == name], label(name), number) for number, name in enumerate(largest)]
    rest = [point for point in items if point.category not in largest]
    data += [_cloud(rest, "other categories" if largest else "items", SERIES - 1)] * bool(rest)
    data += [_own([point for point in found.points if point.kind == kind], kind) for kind in ("history", "interest")]
    bare = {"showgrid": False, "showticklabels": False, "showline": False}
    return figure([one for one in data if one["x"]], 560, axis("", **bare), axis("", scaleanchor="x", **bare))


def _cloud(points: Sequence[MapPoint], name: str, number: int) -> Figure:
    marker = {"size": 6, "symbol": symbol(number), "color": color(number), "opacity": 0.65}
    return _points(points, name, {"mode": "markers", "marker": marker})


def _own(points: Sequence[MapPoint], kind: str) -> Figure:
    if kind == "history":
        ring = {"size": 11, "symbol": "circle-open", "color": "--text", "line": {"width": 2, "color": "--text"}}
        return _points(points, "the user's history", {"mode": "markers", "marker": ring})
    star = {"size": 17, "symbol": "star", "color": "--text", "line": {"width": 1.5, "color": "--back"}}
    shown = {"mode": "markers+text", "marker": star, "textposition": [_SIDES[n % len(_SIDES)] for n in range(len(points))]}
    return _points(points, "the user's interests", shown)


def _points(points: Sequence[MapPoint], name: str, shown: Mapping[str, object]) -> Figure:
    places = {"x": [round(point.x, 3) for point in points], "y": [round(point.y, 3) for point in points]}
    texts = [label(point.label) for point in points]
    return {"type": "scatter", "name": name, **places, "text": texts, "hovertemplate": "%{text}<extra></extra>", **shown}
