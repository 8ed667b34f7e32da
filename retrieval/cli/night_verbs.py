"""What runs unattended, and the verbs that look after it."""

import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from retrieval.cli.options import (
    WORKSPACE,
    EngineOption,
    JsonOption,
    RecipePath,
    SetOption,
    StoreOption,
    WorkspaceOption,
    discard_output,
    show,
    with_engine,
    with_store,
)

if TYPE_CHECKING:
    from retrieval.stages.nightly.records import NightRecord

OverrideOption = Annotated[
    list[str] | None,
    typer.Option("--override", metavar="GATE=WHY", help="Publish although this gate fails; recorded with who, when and why. Repeatable."),
]

NewNormalOption = Annotated[
    bool, typer.Option("--new-normal", help="Compare later nights with this one alone, though its gates were overridden.")
]


def nightly(
    recipe: RecipePath,
    date: Annotated[str, typer.Option(help="The last day of the log that the night reads (UTC), such as 2026-11-20.")] = "yesterday",
    workspace: WorkspaceOption = WORKSPACE,
    overrides: SetOption = None,
    override: OverrideOption = None,
    engine: EngineOption = None,
    again: Annotated[bool, typer.Option("--again", help="Run the night although its day is published already.")] = False,
    new_normal: NewNormalOption = False,
    store: StoreOption = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would run, with rows, memory, disk and time, and do nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a night: prepare, train or go on training, embed, build-index, recall, evaluate, gates, publish.

    The same command goes on where a killed one was; a failed gate leaves what was published and exits with 5; where the day is
    published already nothing is done.

    Example: retrieval nightly pipelines/sample.toml --date 2024-02-20 --workspace workspace
    """
    from retrieval.stages.nightly.gates import parse_overrides
    from retrieval.stages.nightly.request import Request, parse_date

    changes = tuple(with_store(with_engine(overrides, engine), store))
    request = Request(recipe, parse_date(date), workspace, changes, again, new_normal)
    if dry_run:
        from retrieval.stages.nightly.plan import plan, plan_lines

        planned = plan(request)
        return show(planned.model_dump(mode="json"), plan_lines(planned), as_json=as_json)
    from retrieval.stages.nightly.night import run_night

    run_night(request, parse_overrides(override or ()), partial(_show, as_json=as_json))
    return None


def retry(
    recipe: RecipePath,
    workspace: WorkspaceOption = WORKSPACE,
    override: OverrideOption = None,
    new_normal: NewNormalOption = False,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Run the last night again, as it was asked for, from where it failed.

    Example: retrieval retry pipelines/sample.toml
    """
    from retrieval.stages.nightly import verbs
    from retrieval.stages.nightly.gates import parse_overrides
    from retrieval.stages.recipe import read_recipe

    read, overrides = read_recipe(recipe, with_store(None, store)), parse_overrides(override or ())
    verbs.retry(workspace, read, overrides, partial(_show, as_json=as_json), path=recipe, new_normal=new_normal)


def publish(
    recipe: RecipePath,
    date: Annotated[str, typer.Option(help="The night to publish; the last one by default.")] = "",
    workspace: WorkspaceOption = WORKSPACE,
    override: OverrideOption = None,
    new_normal: NewNormalOption = False,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Publish a night that a gate held back.

    Example: retrieval publish pipelines/sample.toml --override 'volume=holiday, half the events are right'
    """
    from retrieval.stages.nightly import verbs
    from retrieval.stages.nightly.gates import parse_overrides
    from retrieval.stages.nightly.request import parse_date
    from retrieval.stages.recipe import read_recipe

    day, read, overrides = parse_date(date) if date else None, read_recipe(recipe, with_store(None, store)), parse_overrides(override or ())
    verbs.publish(workspace, read, day, overrides, partial(_show, as_json=as_json), path=recipe, new_normal=new_normal)


def rollback(
    recipe: RecipePath,
    to: Annotated[int, typer.Option(min=0, help="Number of the version; by default the one that was current before.")] = 0,
    why: Annotated[str, typer.Option(help="For the history.")] = "",
    workspace: WorkspaceOption = WORKSPACE,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Make an earlier version current again, after every byte of it was checked.

    Example: retrieval rollback pipelines/sample.toml --why 'complaints about the list'
    """
    from retrieval.stages.nightly import verbs
    from retrieval.stages.recipe import read_recipe

    version = verbs.rollback(workspace, read_recipe(recipe, with_store(None, store)), to, why)
    show(version.model_dump(mode="json"), f"version {version.number} of {version.date} is published", as_json=as_json)


def push(recipe: RecipePath, workspace: WorkspaceOption = WORKSPACE, store: StoreOption = "", as_json: JsonOption = False) -> None:
    """Make what is published here current in an s3-compatible store; nights with a store do so themselves.

    Example: retrieval push pipelines/sample.toml --store s3://bucket/retrieval
    """
    from retrieval.stages.nightly.shared import SharedNights
    from retrieval.stages.recipe import read_recipe

    version = SharedNights(workspace, read_recipe(recipe, with_store(None, store))).push()
    show(version.model_dump(mode="json"), f"version {version.number} of {version.date} is published there", as_json=as_json)


def pull(recipe: RecipePath, workspace: WorkspaceOption = WORKSPACE, store: StoreOption = "", as_json: JsonOption = False) -> None:
    """Make what is published in a store current here, where it is served, after every byte of it was checked.

    Example: retrieval pull pipelines/sample.toml --store s3://bucket/retrieval
    """
    from retrieval.stages.nightly.shared import SharedNights
    from retrieval.stages.recipe import read_recipe

    version = SharedNights(workspace, read_recipe(recipe, with_store(None, store))).pull()
    show(version.model_dump(mode="json"), f"version {version.number} of {version.date} is published", as_json=as_json)


def status(recipe: RecipePath, workspace: WorkspaceOption = WORKSPACE, as_json: JsonOption = False) -> None:
    """Show what is published and where it lies, who runs a night now and for how long, and what became of the last one.

    Where something of it is damaged, that is shown, and the exit code is 4.

    Example: retrieval status pipelines/sample.toml --json
    """
    from retrieval.core.errors import IntegrityError
    from retrieval.stages.nightly import verbs
    from retrieval.stages.recipe import read_recipe

    read = read_recipe(recipe)
    found = verbs.status(workspace, read)
    show(found, verbs.status_lines(found, workspace, read), as_json=as_json)
    if found["damaged"]:
        raise IntegrityError(found["damaged"][0])


def history(recipe: RecipePath, workspace: WorkspaceOption = WORKSPACE, as_json: JsonOption = False) -> None:
    """Show every night, every version and every move of what is published.

    Example: retrieval history pipelines/sample.toml
    """
    from retrieval.stages.nightly import verbs
    from retrieval.stages.recipe import read_recipe

    read = read_recipe(recipe)
    show(verbs.history(workspace, read), verbs.history_lines(workspace, read), as_json=as_json)


def gc(
    recipe: RecipePath,
    workspace: WorkspaceOption = WORKSPACE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove artifacts of nights that neither the last published versions nor the last two nights need.

    Example: retrieval gc pipelines/sample.toml --dry-run
    """
    from retrieval.stages.nightly import summary, verbs
    from retrieval.stages.recipe import read_recipe

    found = verbs.gc(workspace, read_recipe(recipe), dry_run=dry_run)
    paths = [str(path) for path in found.paths]
    value = {"paths": paths, "bytes": found.bytes, "removed": not dry_run}
    lines = [*paths, f"{summary.amount(found.bytes)} in {len(found.paths)} artifacts {'would go' if dry_run else 'removed'}"]
    show(value, "\n".join(lines), as_json=as_json)


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    for verb in (nightly, status, history, publish, rollback, retry, gc, push, pull):
        app.command()(verb)


def _show(record: "NightRecord", *, as_json: bool) -> None:
    """Whatever becomes of the screen: what became of the night is in its record, and the exit code is the night's."""
    from retrieval.core.logging import get_logger
    from retrieval.stages.nightly.summary import screen

    try:
        show(record.model_dump(mode="json"), screen(record), as_json=as_json)
        sys.stdout.flush()
    except OSError as error:
        discard_output()
        get_logger("nightly").warning("nobody saw the summary", run=record.run, error=str(error))
