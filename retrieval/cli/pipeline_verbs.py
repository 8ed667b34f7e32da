"""The verbs of the pipeline, in its order; each runs what it needs and skips what is done."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from retrieval.cli.options import (
    WORKSPACE,
    EngineOption,
    JsonOption,
    RecipePath,
    SetOption,
    WorkspaceOption,
    open_pipeline,
    show,
    with_engine,
)
from retrieval.core.errors import UsageError

if TYPE_CHECKING:
    from retrieval.core.artifacts import Artifact
    from retrieval.stages.pipeline import Pipeline


def run(recipe: RecipePath, workspace: WorkspaceOption = WORKSPACE, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """Run the whole pipeline: prepare, train, embed, build-index, recall, evaluate, report.

    Stages that are done already, with the same settings and inputs, are skipped.

    Example: retrieval run pipelines/sample.toml --workspace workspace --set train.steps=500
    """
    from retrieval.stages.run import headline, run_all, summary_of

    finished = run_all(open_pipeline(recipe, workspace, overrides))
    show(summary_of(finished), headline(finished), as_json=as_json)


def prepare(recipe: RecipePath, workspace: WorkspaceOption = WORKSPACE, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """Validate, filter, index and split the log.

    Example: retrieval prepare pipelines/sample.toml
    """
    _stage(recipe, workspace, overrides, as_json, lambda pipeline: pipeline.dataset_artifact)


def train(recipe: RecipePath, workspace: WorkspaceOption = WORKSPACE, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """Train the user encoder and the item tower; goes on from a checkpoint after an interruption.

    Example: retrieval train pipelines/sample.toml --set model.interests=8
    """
    _stage(recipe, workspace, overrides, as_json, lambda pipeline: pipeline.model_artifact)


def embed(
    recipe: RecipePath,
    workspace: WorkspaceOption = WORKSPACE,
    overrides: SetOption = None,
    export: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write the vectors of items and users as files for others into this folder.")
    ] = None,
    users: Annotated[
        str,
        typer.Option(
            metavar="all|held-out|none|FILE",
            help="Whose vectors to export beside the items': everyone's, those of the split's held-out users as they looked at the"
            " cut, or of the users in a file (an id a line, or a column user_id in CSV or parquet).",
        ),
    ] = "all",
    file_format: Annotated[Literal["parquet", "npy"], typer.Option("--format", help="npy has the ids in parquet beside it.")] = "parquet",
    shard_rows: Annotated[int, typer.Option(min=1, help="Vectors in an exported file, at most.")] = 250_000,
    engine: EngineOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the item vectors that the index is built from; --export writes them and the users' as files.

    The inner product of an item's vector with a user's is the score that is served. An export that was killed goes on
    where it was.

    Example: retrieval embed pipelines/sample.toml --export vectors --format npy
    """
    if export is None:
        for option, given in (("--users", users != "all"), ("--engine", engine is not None)):
            if given:
                raise UsageError(f"{option} is about the users whose vectors are exported", remedy="add --export FOLDER")
        return _stage(recipe, workspace, overrides, as_json, lambda pipeline: pipeline.vectors)
    from retrieval.stages.audience import Scope
    from retrieval.stages.export import ExportSettings

    named = {"all": Scope(who="all"), "held-out": Scope(who="held-out"), "none": None}
    scope = named[users] if users in named else Scope.of_file(Path(users))
    settings = ExportSettings(users=scope, format=file_format, shard_rows=shard_rows)
    return _stage(recipe, workspace, with_engine(overrides, engine), as_json, lambda pipeline: pipeline.export(export, settings))


def build_index(
    recipe: RecipePath,
    workspace: WorkspaceOption = WORKSPACE,
    overrides: SetOption = None,
    target_recall: Annotated[
        float | None, typer.Option(help="Choose the cheapest index that finds this share of the exact lists (index.choose).")
    ] = None,
    max_memory: Annotated[str | None, typer.Option(help="Bytes that the chosen index may take, such as 2GB.")] = None,
    max_latency: Annotated[str | None, typer.Option(help="Longest wait of a single user, such as 5ms.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Index the item vectors and measure the index against exact search, or choose the index by measurement.

    Example: retrieval build-index pipelines/sample.toml --target-recall .95 --max-memory 2GB
    """
    limits = {"target_recall": target_recall, "max_memory": max_memory, "max_latency": max_latency}
    chosen = [f"index.choose.{name}={value}" for name, value in limits.items() if value is not None]

    def make(pipeline: "Pipeline") -> "Artifact":
        if chosen and not pipeline.recipe.index.choose.target_recall:
            raise UsageError("--max-memory and --max-latency limit a choice", remedy="add --target-recall .95")
        return pipeline.index

    _stage(recipe, workspace, [*(overrides or ()), *chosen], as_json, make)


def recall(
    recipe: RecipePath,
    workspace: WorkspaceOption = WORKSPACE,
    overrides: SetOption = None,
    users: Annotated[
        Path | None,
        typer.Option(
            help="Only the users in this file: an id a line, or a column user_id in CSV or parquet. Unknown ids are counted and left out."
        ),
    ] = None,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Only the split's validation and test users, as they looked at the cut.")
    ] = False,
    index: Annotated[str, typer.Option(help="Id of the index to search; the recipe's own by default.")] = "",
    shard: Annotated[str, typer.Option(metavar="I/N", help="Only share I of N of the users, side by side and whole batches each.")] = "",
    join: Annotated[int, typer.Option(min=0, help="Join so many shards of the workspace into what one run would have written.")] = 0,
    engine: EngineOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the candidate list of every user, from the whole history.

    A recall that was killed goes on after the last part it finished.

    Example: retrieval recall pipelines/sample.toml --users users.csv --shard 1/4
    """
    from retrieval.stages.audience import Scope

    if users and held_out:
        raise UsageError("--users and --held-out exclude each other")
    if shard and join:
        raise UsageError("--shard and --join exclude each other")
    if engine == "ray" and (shard or join):
        raise UsageError("--engine ray makes and joins the shards itself", remedy="say how many with --set machine.ray.shards=8")
    scope = Scope.of_file(users) if users else Scope(who="held-out" if held_out else "all")
    scope = scope.of_shards(*_shard(shard)) if shard else scope

    def make(pipeline: "Pipeline") -> "Artifact":
        searched = pipeline.other_index(index) if index else None
        return pipeline.joined(scope, join, searched) if join else pipeline.candidates(scope, searched)

    _stage(recipe, workspace, with_engine(overrides, engine), as_json, make)


def _shard(text: str) -> tuple[int, int]:
    number, slash, of = text.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise UsageError(f"'{text}' is no share", where="--shard", expected="I/N with I from 1 to N, such as 2/4")
    return int(number), int(of)


def evaluate(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe; or give --candidates and --truth.", show_default=False)] = None,
    workspace: WorkspaceOption = WORKSPACE,
    overrides: SetOption = None,
    candidates: Annotated[Path | None, typer.Option(help="Anybody's lists: parquet with user_id, item_id, rank (or score).")] = None,
    truth: Annotated[Path | None, typer.Option(help="What the users did: parquet with user_id, item_id and perhaps split.")] = None,
    items: Annotated[
        Path | None, typer.Option(help="Parquet with item_id, categories, events; for diversity, coverage and novelty.")
    ] = None,
    users: Annotated[Path | None, typer.Option(help="Parquet with user_id and fields, each of which divides the users.")] = None,
    split: Annotated[str, typer.Option(help="Which part of the truth, where it has a column split.")] = "test",
    keep: Annotated[bool, typer.Option("--keep", help="Keep the values of users in --workspace, for compare.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure lists: of a recipe, or anybody's parquet against anybody's truth (which needs neither torch nor FAISS).

    Example: retrieval evaluate --candidates lists.parquet --truth truth.parquet
    """
    if recipe is not None and candidates is None and truth is None:
        if items or users or split != "test" or keep:
            raise UsageError("--items, --users, --split and --keep go with --candidates and --truth", remedy="a recipe brings its own")
        _stage(recipe, workspace, overrides, as_json, lambda pipeline: pipeline.measurements)
        return
    if recipe is not None or candidates is None or truth is None:
        raise UsageError("evaluate needs a RECIPE, or both --candidates and --truth")
    from retrieval.stages.evaluate_files import evaluate_files, keep_measurements, table

    if not keep:
        summary = evaluate_files(candidates, truth, items, users, split, overrides or ())
        show(summary.model_dump(mode="json"), table(summary), as_json=as_json)
        return
    from retrieval.core.artifacts import Workspace
    from retrieval.evaluation.measurements import SUMMARY, read_summary

    made = keep_measurements(candidates, truth, items, users, split, overrides or (), Workspace(workspace))
    summary = read_summary(made.file(SUMMARY))
    text = f"{table(summary)}\n\nkept for compare: {made.path}"
    show({**summary.model_dump(mode="json"), "path": str(made.path)}, text, as_json=as_json)


def folds(
    recipe: RecipePath,
    workspace: WorkspaceOption = WORKSPACE,
    overrides: SetOption = None,
    folds: Annotated[
        int, typer.Option(min=1, help="How many test windows of split.test_seconds, the last of which ends with the log.")
    ] = 5,
    as_json: JsonOption = False,
) -> None:
    """Run a recipe over consecutive test windows, each trained on everything before it, and average them.

    Folds that are done are skipped, so that more of them cost only the new ones.

    Example: retrieval folds pipelines/sample.toml --folds 3
    """
    from retrieval.stages.folds import lines, run_folds

    found = run_folds(open_pipeline(recipe, workspace, overrides), folds)
    summary = {"kind": found.kind, "id": found.id, "path": str(found.path), "summary": found.summary}
    show(summary, "\n".join(lines(found)), as_json=as_json)


def report(recipe: RecipePath, workspace: WorkspaceOption = WORKSPACE, overrides: SetOption = None, as_json: JsonOption = False) -> None:
    """Write the report page, with the baselines that the recipe names.

    Example: retrieval report pipelines/sample.toml
    """
    from retrieval.stages.run import run_all

    _stage(recipe, workspace, overrides, as_json, lambda pipeline: run_all(pipeline).report)


def register(app: typer.Typer) -> None:
    """Add the verbs to the command."""
    for verb in (run, prepare, train, embed, build_index, recall, evaluate, folds, report):
        app.command()(verb)


def _stage(recipe: Path, workspace: Path, overrides: list[str] | None, as_json: bool, make: Callable[["Pipeline"], "Artifact"]) -> None:
    artifact = make(open_pipeline(recipe, workspace, overrides))
    summary = {"kind": artifact.kind, "id": artifact.id, "path": str(artifact.path), "summary": artifact.summary}
    show(summary, str(artifact.path), as_json=as_json)
