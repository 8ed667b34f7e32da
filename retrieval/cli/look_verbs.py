"""Verbs that only look: config, doctor, inspect, explain."""

import json
from pathlib import Path
from typing import Annotated

import typer

from retrieval.cli.options import WORKSPACE, JsonOption, RecipePath, SetOption, WorkspaceOption, open_pipeline


def config(recipe: RecipePath, overrides: SetOption = None) -> None:
    """Show a recipe with every default filled in, as JSON.

    Example: retrieval config pipelines/sample.toml --set model.interests=8
    """
    from retrieval.stages.recipe import read_recipe

    typer.echo(read_recipe(recipe, overrides or ()).model_dump_json(indent=2, by_alias=True))


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
    user: Annotated[str, typer.Option(help="The user's id, as in the log.")],
    workspace: WorkspaceOption = WORKSPACE,
    overrides: SetOption = None,
    top: Annotated[int, typer.Option(min=1, help="How many items of the list to explain.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Show a user's history and interests, which interest brought each item, and which events drove it.

    Example: retrieval explain pipelines/sample.toml --user 17
    """
    from retrieval.stages.explain import explain_user, explanation_lines

    found = explain_user(open_pipeline(recipe, workspace, overrides), user, top)
    typer.echo(json.dumps(found, ensure_ascii=False) if as_json else "\n".join(explanation_lines(found)))


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    for verb in (config, doctor, inspect, explain):
        app.command()(verb)
