"""What was tried, as JSON, CSV, a Markdown table and a picture."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT, _EDGE = 640, 400, 56
_MARKS = {"chosen": "#009E73", "holds": "#0072B2"}
_OTHER = "#D55E00"


@dataclass(frozen=True)
class Point:
    """A candidate: how it is built and searched, what it finds and costs, and what became of it.

    recall, lower: the mean share of their exact list that users get, and its lower 95 % bound; None where nothing was measured.
    seconds: core-seconds a user, measured; estimated: before it was built. latency: seconds that 95 of 100 single users wait
    at most, None where there is no limit. memory: bytes. verdict: `chosen`, `holds`, or why not.
    """

    factory: str
    nprobe: int
    ef_search: int
    refine_factor: float
    recall: float | None
    lower: float | None
    seconds: float | None
    estimated: float | None
    latency: float | None
    memory: float
    verdict: str

    @property
    def knob(self) -> str:
        """How it is searched, in a word."""
        if self.factory.startswith("IVF"):
            return f"nprobe={self.nprobe}" + (f" refine={self.refine_factor:g}" if "RFlat" in self.factory else "")
        return f"ef={self.ef_search}" if self.factory.startswith("HNSW") else ""


def as_csv(points: Sequence[Point]) -> str:
    """A line a point under a head of names."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(Point.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in asdict(point).items()} for point in points)
    return stream.getvalue()


def _cell(value: Any) -> Any:
    """A text that a spreadsheet would run as a formula gets the apostrophe that makes it text (OWASP, CSV injection)."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def as_markdown(points: Sequence[Point], n: int) -> str:
    """A table, cheapest first."""
    lines = [f"| index | searched with | recall@{n} | lower bound | us a user | estimated | ms alone | MB | |", "|" + "---|" * 9]
    for point in sorted(points, key=lambda point: point.seconds or float("inf")):
        cells: list[Any] = [point.factory, point.knob, _shown(point.recall, 1, ".4f"), _shown(point.lower, 1, ".4f")]
        cells += [_shown(point.seconds, 1e6, ".1f"), _shown(point.estimated, 1e6, ".1f"), _shown(point.latency, 1e3, ".2f")]
        lines.append("| " + " | ".join([*cells, f"{point.memory / 1e6:.1f}", point.verdict]) + " |")
    return "\n".join(lines) + "\n"


def _shown(value: float | None, scale: float, form: str) -> str:
    return "" if value is None else format(value * scale, form)


def as_picture(points: Sequence[Point], target: float, n: int) -> str:
    """An SVG: recall upwards, core-seconds a user to the right on a logarithmic scale, the target as a line."""
    import math

    known = [point for point in points if point.recall is not None and point.seconds]
    costs = [math.log10((point.seconds or 1.0) * 1e6) for point in known] or [0.0]
    low, high = min(costs) - 0.1, max(costs) + 0.3
    floor = min([target, *[point.recall or 0.0 for point in known]]) - 0.01

    def right(cost: float) -> float:
        return _EDGE + (cost - low) / (high - low) * (_WIDTH - 2 * _EDGE)

    def up(recall: float) -> float:
        return _HEIGHT - _EDGE - (recall - floor) / (1.005 - floor) * (_HEIGHT - 2 * _EDGE)

    marks = [_mark(right(cost), up(point.recall or 0.0), point) for cost, point in zip(costs, known, strict=False)]
    return _framed([*_axes(up, right, (low, high, floor), n), _target(up(target), target), *marks])


def _mark(x: float, y: float, point: Point) -> str:
    colour = _MARKS.get(point.verdict, _OTHER)
    label = escape(f"{point.factory} {point.knob}")
    dot = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{6 if point.verdict == "chosen" else 4}" fill="{colour}"><title>{label}</title></circle>'
    return dot + f'<text x="{x + 8:.1f}" y="{y + 4:.1f}" font-size="10">{label}</text>'


def _axes(up: Callable[[float], float], right: Callable[[float], float], ends: tuple[float, float, float], n: int) -> list[str]:
    low, high, floor = ends
    bottom = _HEIGHT - _EDGE
    frame = f'<path d="M{_EDGE},{_EDGE / 2} V{bottom} H{_WIDTH - _EDGE / 2}" fill="none" stroke="currentColor"/>'
    costs = [low + (high - low) * part / 4 for part in range(5)]
    recalls = [floor + (1.0 - floor) * part / 4 for part in range(5)]
    below = [f'<text x="{right(cost):.1f}" y="{bottom + 16}" text-anchor="middle">{10**cost:.3g}</text>' for cost in costs]
    beside = [f'<text x="{_EDGE - 6}" y="{up(recall) + 4:.1f}" text-anchor="end">{recall:.3f}</text>' for recall in recalls]
    names = f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 12}" text-anchor="middle">core-microseconds a user</text>'
    return [frame, *below, *beside, names, f'<text x="{_EDGE}" y="16">recall@{n}</text>']


def _target(y: float, target: float) -> str:
    line = f'<path d="M{_EDGE},{y:.1f} H{_WIDTH - _EDGE / 2}" stroke="#999" stroke-dasharray="4"/>'
    return line + f'<text x="{_WIDTH - _EDGE / 2}" y="{y - 4:.1f}" text-anchor="end" fill="#777">target {target:g}</text>'


def _framed(parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="11">'
    return "\n".join([head, *parts, "</svg>"]) + "\n"
