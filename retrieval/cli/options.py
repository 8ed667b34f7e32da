"""Options that many verbs share, and how a verb opens a run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from retrieval.stages.pipeline import Pipeline

RecipePath = Annotated[Path, typer.Argument(help="A recipe, such as pipelines/sample.toml.", show_default=False)]
WorkspaceOption = Annotated[Path, typer.Option("--workspace", "-w", help="Where artifacts lie.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Change a setting: --set train.steps=100. Repeatable.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, everything else on standard error.")]
WORKSPACE = Path("workspace")


def open_pipeline(recipe: Path, workspace: Path, overrides: list[str] | None) -> "Pipeline":
    """The pipeline of a recipe file, with the threads that the recipe allows.

    Raises:
        UsageError: the recipe is wrong. ResourceError: the workspace cannot be written.
    """
    from retrieval.stages.recipe import read_recipe
    from retrieval.stages.run import open_run

    return open_run(read_recipe(recipe, overrides or ()), workspace)
