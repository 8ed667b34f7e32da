"""`retrieval data`: known public sets, and the generator."""

import json
from pathlib import Path
from typing import Annotated

import typer

from retrieval.cli.options import JsonOption
from retrieval.core.errors import UsageError

app = typer.Typer(help="Public data sets by name, and generated logs.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_sets(as_json: JsonOption = False) -> None:
    """List the public sets that `get` knows.

    Example: retrieval data list
    """
    from retrieval.data.known import list_known

    known = list_known()
    text = "\n".join(f"{each.name:<22} {each.title}" for each in known)
    typer.echo(json.dumps([each.model_dump() for each in known]) if as_json else text)


@app.command()
def get(
    name: Annotated[str, typer.Argument(help="A name that `list` shows.", show_default=False)],
    accept_licence: Annotated[bool, typer.Option("--accept-licence", help="You have read the set's licence and accept it.")] = False,
    source: Annotated[Path | None, typer.Option("--from", help="A local copy, for machines without a network.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Where sets are kept; ~/.cache/retrieval by default.")] = None,
) -> None:
    """Fetch a public set, check it, and convert it to standard tables.

    Example: retrieval data get ml-100k --accept-licence
    """
    from retrieval.data.known import get_known

    typer.echo(get_known(name, cache or _default_cache(), accept_licence=accept_licence, source=source))


@app.command()
def generate(
    folder: Annotated[Path, typer.Argument(help="Where to write the log.", show_default=False)],
    users: Annotated[int, typer.Option(help="How many users.")] = 2000,
    items: Annotated[int, typer.Option(help="How many items.")] = 2000,
    days: Annotated[int, typer.Option(help="How many days.")] = 60,
    seed: Annotated[int, typer.Option(help="The same seed makes the same log.")] = 0,
    events_per_user: Annotated[float, typer.Option(help="Mean events of a user.")] = 50.0,
) -> None:
    """Generate a log with a category tree, users of several planted interests that drift, new users and items.

    Example: retrieval data generate generated --users 10000 --items 5000 --days 60 --seed 7
    """
    from retrieval.core.settings import parse_settings
    from retrieval.data.generator.generate import generate as write_log
    from retrieval.data.generator.settings import GeneratorSettings

    values = {"users": users, "items": items, "days": days, "seed": seed, "behaviour": {"events_per_user": events_per_user}}
    written = write_log(parse_settings(GeneratorSettings, values, "retrieval data generate"), folder)
    typer.echo(f"{written.folder}: {written.events} events of {written.users} users on {written.items} items")


def _default_cache() -> Path:
    try:
        return Path.home() / ".cache" / "retrieval"
    except RuntimeError:
        raise UsageError("this user has no home directory", remedy="say with --cache where sets are kept") from None
