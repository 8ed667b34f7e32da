"""`retrieval tune`: search over settings."""

import json
from pathlib import Path
from typing import Annotated

import typer

from retrieval.cli.options import WORKSPACE, JsonOption, RecipePath, SetOption, WorkspaceOption


def tune(
    recipe: RecipePath,
    workspace: WorkspaceOption = WORKSPACE,
    overrides: SetOption = None,
    space: Annotated[
        Path | None, typer.Option(help="The search file; by default the one beside the recipe, NAME.search.toml.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Where to write the winner's recipe, besides WORKSPACE/tune/NAME/recipe.toml.", show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --output if it is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Search over settings by the validation metric of training, and write the winner as a recipe.

    The same command goes on where a search was stopped, and adds trials where the search file asks for more.

    Example: retrieval tune pipelines/sample.toml --output tuned.toml
    """
    from retrieval.stages.tune import open_tuning, summary_of, table
    from retrieval.stages.tune import tune as search

    found = search(open_tuning(recipe, space, overrides or (), workspace), output, overwrite=overwrite)
    typer.echo(json.dumps(summary_of(found), ensure_ascii=False, allow_nan=False) if as_json else table(found))


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command()(tune)
