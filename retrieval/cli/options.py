"""Options that many verbs share, and how a verb opens a run."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from retrieval.core.secrets import redacted, without_secrets

if TYPE_CHECKING:
    from retrieval.stages.pipeline import Pipeline

RecipePath = Annotated[Path, typer.Argument(help="A recipe, such as pipelines/sample.toml.", show_default=False)]
WorkspaceOption = Annotated[Path, typer.Option("--workspace", "-w", help="Where artifacts lie.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Change a setting: --set train.steps=100. Repeatable.")
]
EngineOption = Annotated[
    Literal["local", "ray"] | None,
    typer.Option(
        help="What makes lists and users' vectors: this process, or the tasks of a Ray cluster (machine.engine; see docs/processes.md)."
    ),
]
StoreOption = Annotated[
    str,
    typer.Option(
        "--store",
        metavar="s3://BUCKET/PREFIX",
        help="What machines have in common (nightly.store; see docs/nightly.md).",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, everything else on standard error.")]
WORKSPACE = Path("workspace")


def with_engine(overrides: list[str] | None, engine: str | None) -> list[str]:
    """The overrides, and that of the engine where one was named."""
    return [*(overrides or ()), *([f"machine.engine={engine}"] if engine else ())]


def with_store(overrides: list[str] | None, store: str) -> list[str]:
    """The overrides, and that of the store where one was named."""
    return [*(overrides or ()), *([f"nightly.store={store}"] if store else ())]


def open_pipeline(recipe: Path, workspace: Path, overrides: list[str] | None) -> "Pipeline":
    """The pipeline of a recipe file, with the threads that the recipe allows.

    Raises:
        UsageError: the recipe is wrong. ResourceError: the workspace cannot be written.
    """
    from retrieval.stages.recipe import read_recipe
    from retrieval.stages.run import open_run

    return open_run(read_recipe(recipe, overrides or ()), workspace)


def discard_output() -> None:
    """Nothing more goes to standard output, nor what waits in its buffer."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def show(value: Any, text: str, *, as_json: bool) -> None:
    """A result on standard output, for a program or for a person; without secrets."""
    typer.echo(json.dumps(without_secrets(value), ensure_ascii=False, allow_nan=False) if as_json else redacted(text))
