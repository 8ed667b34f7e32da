"""`retrieval check-leaks`: of a recipe, or of anybody's tables."""

import datetime as dt
import json
from pathlib import Path
from typing import Annotated

import typer

from retrieval.cli.options import WORKSPACE, JsonOption, SetOption, WorkspaceOption, open_pipeline
from retrieval.core.errors import UsageError


def check_leaks(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe; or give --train and --truth.", show_default=False)] = None,
    workspace: WorkspaceOption = WORKSPACE,
    overrides: SetOption = None,
    train: Annotated[Path | None, typer.Option(help="Anybody's training events: parquet with user_id, item_id, timestamp.")] = None,
    truth: Annotated[
        Path | None, typer.Option(help="What is asked for: parquet with user_id, item_id and perhaps timestamp and split.")
    ] = None,
    history: Annotated[Path | None, typer.Option(help="What users are seen with, like --train; their training events without it.")] = None,
    candidates: Annotated[Path | None, typer.Option(help="Lists for the users of the truth: parquet with user_id, item_id.")] = None,
    items: Annotated[
        Path | None, typer.Option(help="Item fields: parquet with item_id, numbers and times; `events` is taken for a popularity.")
    ] = None,
    cut: Annotated[str, typer.Option(help="From here on nothing is trained on: a number as in the timestamps, or a date (UTC).")] = "",
    split: Annotated[str, typer.Option(help="Which part of the truth, where it has a column split.")] = "test",
    users_apart: Annotated[bool, typer.Option("--users-apart", help="Users of the truth may not be trained on.")] = False,
    sees_window: Annotated[
        bool | None,
        typer.Option(
            "--sees-window/--histories-end-at-cut",
            help="Whether users may be seen with what they did between --cut and their target.",
            show_default="where the truth has timestamps",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Look for anything that had to stay hidden and reached training, histories, popularity, item fields or lists.

    Leaves with code 5 where there is a leak. With a recipe, the dataset is made if it is not there; its model is looked at,
    too, if it is trained.

    Example: retrieval check-leaks --train train.parquet --truth truth.parquet --candidates lists.parquet --cut 2024-03-01
    """
    from retrieval.stages.check_leaks import check_pipeline, check_tables, report_lines, require_clean

    if recipe is not None and not (train or truth or history or items or cut or users_apart or sees_window is not None):
        found = check_pipeline(open_pipeline(recipe, workspace, overrides), candidates)
    elif recipe is None and train and truth:
        from retrieval.evaluation.leaks.tables import LeakTables

        found = check_tables(LeakTables(train, truth, history, candidates, items, _moment(cut), split, users_apart, sees_window))
    else:
        raise UsageError("check-leaks needs a RECIPE (perhaps with --candidates), or both --train and --truth")
    typer.echo(json.dumps(found.model_dump(mode="json"), ensure_ascii=False) if as_json else "\n".join(report_lines(found)))
    require_clean(found)


def _moment(text: str) -> int | dt.datetime | None:
    if not text or text.lstrip("-").isdecimal():
        return int(text) if text else None
    try:
        return dt.datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"'{text}' is no moment", where="--cut", expected="a number, or a date such as 2024-03-01") from None


def register(app: typer.Typer) -> None:
    """Add the verb to the command."""
    app.command()(check_leaks)
