"""Verbs that only look: config, doctor, inspect, explain."""

import json
from pathlib import Path
from typing import Annotated

import typer

from retrieval.cli.options import WORKSPACE, JsonOption, RecipePath, SetOption, WorkspaceOption, open_pipeline
from retrieval.core.errors import UsageError
from retrieval.core.secrets import without_secrets


def config(recipe: RecipePath, overrides: SetOption = None) -> None:
    """Show a recipe with every default filled in, as JSON.

    Example: retrieval config pipelines/sample.toml --set model.interests=8
    """
    from retrieval.stages.recipe import read_recipe

    shown = without_secrets(read_recipe(recipe, overrides or ()).model_dump(mode="json", by_alias=True))
    typer.echo(json.dumps(shown, indent=2, ensure_ascii=False))


def doctor(as_json: JsonOption = False) -> None:
    """Say what this machine has, what is missing and how to get it.

    Example: retrieval doctor
    """
    from retrieval.stages.doctor import examine, lines

    found = examine()
    typer.echo(json.dumps(found) if as_json else "\n".join(lines(found)))


def inspect(
    artifact: Annotated[Path, typer.Argument(help="An artifact's directory, such as workspace/model/ID.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Show what an artifact is and where it came from, and check every file of it.

    Example: retrieval inspect workspace/index/0123456789abcdef
    """
    from retrieval.stages.inspect import describe

    found = describe(artifact)
    typer.echo(json.dumps(found) if as_json else "\n".join(f"{name:<16} {value}" for name, value in found.items()))


def explain(
    recipe: RecipePath,
    user: Annotated[
        list[str] | None, typer.Option(help="A user's id, as in the log; with the whole history. Repeatable.", show_default=False)
    ] = None,
    sample: Annotated[
        int, typer.Option(min=0, max=500, help="So many test users instead, as they looked at the cut, with their hits marked.")
    ] = 0,
    page: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the gallery as one HTML page.", show_default=False)] = None,
    workspace: WorkspaceOption = WORKSPACE,
    overrides: SetOption = None,
    top: Annotated[int, typer.Option(min=1, help="How many items of the list to explain.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Show users' histories and interests, which interest brought each item, which events drove it, and what diversity changed.

    Example: retrieval explain pipelines/sample.toml --user 17

    Example: retrieval explain pipelines/sample.toml --sample 12 --page gallery.html
    """
    from retrieval.stages.gallery import gallery, gallery_lines, write_gallery

    if bool(user) == bool(sample):
        raise UsageError("explain needs somebody", expected="either --user ID or --sample N")
    found = gallery(open_pipeline(recipe, workspace, overrides), user or (), sample, top)
    if page is not None:
        write_gallery(found, page)
    text = str(page) if page is not None else "\n".join(gallery_lines(found))
    typer.echo(json.dumps(found.model_dump(mode="json"), ensure_ascii=False) if as_json else text)


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    for verb in (config, doctor, inspect, explain):
        app.command()(verb)
