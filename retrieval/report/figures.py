"""Numbers as text, the same in every rendering; what is missing is a dash."""

from retrieval.evaluation.bootstrap import Interval
from retrieval.report.printable import clipped, printable

MISSING = "-"


def decimal(value: float | None, digits: int = 4) -> str:
    """`0.2510`."""
    if value is None:
        return MISSING
    text = f"{value:.{digits}f}"
    return text.replace("-", "\u2212") if float(text) else text.lstrip("-")


def signed(value: float | None, digits: int = 4) -> str:
    """`+0.0120` or `−0.0120`."""
    text = decimal(value, digits)
    return f"+{text}" if value is not None and text[0].isdigit() and float(text) > 0 else text


def count(value: int | None) -> str:
    """`1,000,209`."""
    return MISSING if value is None else f"{value:,}"


def percent(value: float | None) -> str:
    """`25.1 %` of a share between 0 and 1; the space never breaks."""
    return MISSING if value is None else f"{100 * value:.1f}\u00a0%"


def duration(seconds: float | None) -> str:
    """`0.3 s`, `4 min 12 s`, `2 h 05 min`."""
    if seconds is None:
        return MISSING
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def size(n_bytes: int | None) -> str:
    """`512 MB`, `1.25 GB` (decimal units)."""
    if n_bytes is None:
        return MISSING
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def span(interval: Interval | None, digits: int = 4, sign: bool = False) -> str:
    """`0.2460 to 0.2560`, empty where there is no interval."""
    if interval is None or interval.low is None or interval.high is None:
        return ""
    write = signed if sign else decimal
    return f"{write(interval.low, digits)} to {write(interval.high, digits)}"


def text(value: object) -> str:
    """Anything else as text, no longer than can be read; None and empty text are a dash."""
    return MISSING if value is None or value == "" else clipped(printable(str(value)))
