"""`retrieval compare`: runs side by side."""

import json
from pathlib import Path
from typing import Annotated

import typer

from retrieval.cli.options import WORKSPACE, JsonOption, WorkspaceOption


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN RUN...",
            help="A recipe, or the directory or id of a report or of measurements; RUN:BASELINE is one of its baselines, NAME=RUN calls it"
            " NAME. The others are compared with the first.",
            show_default=False,
        ),
    ],
    workspace: WorkspaceOption = WORKSPACE,
    page: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the comparison as one HTML page.", show_default=False)] = None,
    users: Annotated[int, typer.Option(min=0, max=100, help="How many users who gained most, and who lost most, to show.")] = 5,
    top: Annotated[int, typer.Option(min=1, max=1000, help="How many items of their lists.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Compare runs on the same users: paired differences, settings, slices, who gained and lost, and their lists.

    A recipe is run as far as it was not yet.

    Example: retrieval compare before=workspace/report/0123456789abcdef after=workspace/report/fedcba9876543210 --page compare.html

    Example: retrieval compare pipelines/sample.toml:k1 pipelines/sample.toml
    """
    from retrieval.stages.compare import compare_runs, comparison_text, write_comparison

    found = compare_runs(runs, workspace, users, top)
    if page is not None:
        write_comparison(found, page)
    text = str(page) if page is not None else comparison_text(found)
    typer.echo(json.dumps(found.to_json(), ensure_ascii=False, allow_nan=False) if as_json else text)


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command()(compare)
