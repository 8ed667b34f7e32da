"""Structured events on standard error; standard output belongs to results."""

import contextlib
import io
import sys
from contextlib import AbstractContextManager
from typing import Any, TextIO, cast

import structlog

from retrieval.core.secrets import redacted


def configure_logging(*, as_json: bool, level: int) -> None:
    """Pretty lines on a terminal, one JSON object a line otherwise. `level` as in the logging module."""
    renderer = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if not as_json else "iso", utc=as_json),
            lambda *event: redacted(str(renderer(*event))),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_to_stderr,
        cache_logger_on_first_use=False,
    )


def _to_stderr(*_: Any) -> Any:
    return structlog.PrintLogger(_STANDARD_ERROR)


class _StandardError(io.TextIOBase):
    """Events are told as far as they can be: a disk of logs that is full is no reason to end the work."""

    def write(self, text: str) -> int:
        # Looked up at each call, so that a test's capture and a later redirection are honoured.
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()


_STANDARD_ERROR = cast("TextIO", _StandardError())


def bound(**names: object) -> AbstractContextManager[None]:
    """Inside the block, every event of this thread carries these names."""
    return structlog.contextvars.bound_contextvars(**names)


def get_logger(name: str) -> Any:
    """A logger whose events carry the part of the program they came from."""
    return structlog.get_logger(part=name)
