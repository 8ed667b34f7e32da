"""The `retrieval` command: verbs, and the one place where an error becomes a line and an exit code."""

import contextlib
import logging
import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from retrieval import __version__
from retrieval.cli import compare_verb, data_verbs, leak_verb, look_verbs, night_verbs, pipeline_verbs, tune_verb
from retrieval.cli.options import discard_output
from retrieval.core.errors import ResourceError, RetrievalError, exit_code_of
from retrieval.core.logging import configure_logging
from retrieval.core.ranks import own_place
from retrieval.core.resources import as_resource_error
from retrieval.core.secrets import redacted

if TYPE_CHECKING:
    from retrieval.stages.crew import Crew

# A waiting thread that spins takes the core from whoever it waits for; on a shared machine that costs a factor of ten.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

app = typer.Typer(
    name="retrieval",
    help="Multi-interest candidate retrieval: interaction logs in, diverse candidates out, with proof.",
    epilog="Start with: retrieval run pipelines/sample.toml",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
pipeline_verbs.register(app)
night_verbs.register(app)
tune_verb.register(app)
look_verbs.register(app)
leak_verb.register(app)
compare_verb.register(app)
app.add_typer(data_verbs.app, name="data")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show debug events, and a traceback with an error.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show warnings and errors only.")] = False,
    log_json: Annotated[
        bool | None,
        typer.Option("--log-json/--log-text", help="Events as JSON lines; the default where standard error is no terminal."),
    ] = None,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Options of every verb; they stand before the verb."""
    del version
    level = logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO
    configure_logging(as_json=not sys.stderr.isatty() if log_json is None else log_json, level=level)


def main() -> None:
    """Run the command line and leave with the exit code of docs/exit-codes.md."""
    if own_place().size > 1:
        _run_with_others(sys.argv[1:])
    sys.exit(_run(sys.argv[1:]))


def _run_with_others(arguments: list[str]) -> NoReturn:
    """Under a launcher of several processes: the first one runs the command, the others train with it."""
    from retrieval.stages.crew import crew, disband

    try:
        everybody = crew()
    except RuntimeError as error:
        sys.exit(_report(ResourceError(f"the other processes are not there: {error}", where="launcher"), debug=False))
    assert everybody is not None  # noqa: S101 - there are several
    if own_place().follows:
        code = _follow(everybody, debug="--debug" in arguments)
    else:
        code = _run(arguments)
        everybody.end(code)
    disband()
    sys.stdout.flush()
    sys.stderr.flush()
    # All is written and said; the communication libraries may still abort on the way out of a good run.
    os._exit(code)


def _follow(everybody: "Crew", *, debug: bool) -> int:
    configure_logging(as_json=True, level=logging.WARNING)
    # A process that sleeps until it is needed could not answer Python's handler.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        return everybody.follow()
    except BaseException as error:
        ended = everybody.ended()
        return _report(error, debug=debug) if ended is None else ended


def _run(arguments: list[str]) -> int:
    try:
        result = app(arguments, standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except typer.Abort:
        return _report(KeyboardInterrupt(), debug=False)
    except typer.TyperException as error:
        _show_usage(error)
        return error.exit_code
    except BaseException as error:
        return _report(error, debug="--debug" in arguments)


def _show_usage(error: typer.TyperException) -> None:
    context, text = getattr(error, "ctx", None), error.format_message()
    if context is not None and text == context.get_help():
        print(text, file=sys.stderr)
        return
    remedy = f"; see {context.command_path} --help" if context is not None else ""
    print(redacted(f"error: {' '.join(text.split()).rstrip('.')}{remedy}"), file=sys.stderr)


def _report(error: BaseException, *, debug: bool) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, BrokenPipeError):
        # The reader of a pipe went away; that is its right.
        discard_output()
        return 0
    known = error if isinstance(error, RetrievalError) else as_resource_error(error, "retrieval") or error
    # Where nothing can be said any more, the code still says it.
    with contextlib.suppress(OSError):
        if debug:
            print(redacted("".join(traceback.format_exception(error))), file=sys.stderr, end="")
        print(redacted(f"error: {_line(known)}"), file=sys.stderr)
    return exit_code_of(known)


def _line(error: BaseException) -> str:
    if isinstance(error, RetrievalError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0] if first else ''}; this is a bug, run again with --debug and report it"


if __name__ == "__main__":
    main()
