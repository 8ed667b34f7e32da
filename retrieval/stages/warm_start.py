"""Warm start: a new log's model begins with the weights of an earlier one, items matched by their ids, values of fields by their names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl
import torch

from retrieval.core.artifacts import MANIFEST, Artifact, Workspace, open_artifact
from retrieval.core.errors import UsageError
from retrieval.core.settings import fingerprint
from retrieval.data.catalog import Catalog, rows_of
from retrieval.data.fields.settings import BucketedField, EntityField, EventField
from retrieval.models.retrieval_model import AbstractRetrievalModel, RetrievalModel
from retrieval.models.settings import EncoderSettings
from retrieval.stages.recipe import Recipe
from retrieval.training.tensor_files import TensorFile

_Value = TypeVar("_Value")
ITEM_IDS = "item_ids.parquet"
FIELD_ROWS = "field_rows.parquet"
WEIGHTS = "model.safetensors"
# What is no part of what the weights have learned; with any other difference it is another encoder, even where shapes agree.
_FREE = ("dropout", "hidden_dropout", "temperature", "init_std", "prior")


def find_start(recipe: Recipe, workspace: Workspace) -> Artifact | None:
    """The model that `train.start_from` names, by the path of its directory or by its id in the workspace; None without one.

    Raises:
        UsageError: there is no such model, or more than one, or it was written without the ids of its items.
        IntegrityError: its manifest is damaged.
    """
    named = recipe.train.start_from
    if not named:
        return None
    artifact = open_artifact(Path(named)) if (Path(named) / MANIFEST).is_file() else workspace.open("model", named)
    if artifact.kind != "model" or ITEM_IDS not in artifact.manifest.files:
        what = f"is of kind '{artifact.kind}'" if artifact.kind != "model" else "does not say which items its rows are"
        raise UsageError(what, where=f"train.start_from = {named}", expected="a trained model", remedy="train it with this version")
    return artifact


def identity_of(start: Artifact) -> dict[str, str]:
    """What of the start model a training is a function of: its id, and the bytes of its weights and item ids."""
    files = start.manifest.files
    names = [name for name in (WEIGHTS, ITEM_IDS, FIELD_ROWS) if name in files]
    return {"start": start.id, "start bytes": fingerprint([files[name].sha256 for name in names])}


def save_item_ids(catalog: Catalog, path: Path) -> None:
    """Write which item each row of the model is."""
    pl.DataFrame({"item_id": catalog.item_ids}).write_parquet(path)


def start_from(model: AbstractRetrievalModel, recipe: Recipe, catalog: Catalog, start: Artifact) -> dict[str, Any]:
    """Put the start model's weights into a model with fresh ones; items it does not know keep the fresh ones.

    Returns what a manifest says about it: how many items were known and how many are new.

    Raises:
        UsageError: the two models differ in more than their items. IntegrityError: a file is damaged.
    """
    _refuse_other_settings(recipe, start)
    if not isinstance(model, RetrievalModel):
        raise UsageError("popularity is counted, it has no weights to start from", where="train.start_from")
    rows = torch.from_numpy(_rows(catalog, start).copy())
    old, new = TensorFile(start.file(WEIGHTS)), _learned(model, model.state_dict())
    _refuse_other_shapes(model, _learned(model, old.shapes), {name: tuple(value.shape) for name, value in new.items()}, start)
    named = {name: torch.from_numpy(each.copy()) for name, each in _field_rows(model, start).items()}
    for name, value in new.items():
        if name in model.per_item:
            old.take(name, rows[model.items.held], value)
        elif name in named:
            old.take(name, named[name], value)
        else:
            value.copy_(old[name])
    if model.items.fields is not None:
        old.take("items.fields.trained", rows, model.items.fields.trained)
    known = int((rows >= 0).sum())
    return {"model": start.id, "known_items": known, "new_items": len(rows) - known}


def _rows(catalog: Catalog, start: Artifact) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The start model's row of every item, -1 where it has none."""
    ids = pl.read_parquet(start.file(ITEM_IDS))["item_id"]
    found = rows_of(ids, catalog.item_ids) if ids.dtype == catalog.item_ids.dtype else np.full(catalog.n_items, -1)
    if not (found >= 0).any():
        raise UsageError(
            f"knows none of the {catalog.n_items} items",
            where=f"train.start_from = {start.path}",
            expected=f"a model of the same catalog, with {catalog.item_ids.dtype} ids",
        )
    return found


def other_settings(recipe: Recipe, start: Artifact) -> dict[str, tuple[Any, Any]]:
    """The settings by which the start model is another encoder than the recipe's, now and then; none where training can go on from it."""
    model, meanings = recipe.model.model_dump(mode="json", exclude=set(_FREE)), field_meanings(recipe)
    was = {name: value for name, value in start.manifest.settings["model"].items() if name not in _FREE}
    return _differing("model.", model, was) | _differing("data.", meanings, start.summary.get("fields", {}))


def _differing(prefix: str, now: Mapping[str, Any], was: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    pairs = {f"{prefix}{name}": (now.get(name), was.get(name)) for name in dict.fromkeys([*now, *was])}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def field_meanings(recipe: Recipe) -> dict[str, str]:
    """What the values of each field are that the recipe's model reads, by where it is declared: "numeric in buckets".

    What layers and gates have learned of a field stands at its place among the others, which follows from this. Columns and patterns may
    change: a table may call the same thing otherwise.
    """
    if not isinstance(recipe.model, EncoderSettings):
        return {}
    read, data = recipe.model.fields, recipe.data
    users = (*read.users, *(read.poso.keys if read.poso.form != "none" else ()))
    declared: dict[str, Mapping[str, EntityField | EventField]] = {
        "items": data.items.fields,
        "users": data.users.fields,
        "interactions": data.interactions.fields,
    }
    names = {"items": read.items, "users": users, "interactions": read.events}
    return {f"{side}.fields.{name}": _meaning(fields[name]) for side, fields in declared.items() for name in names[side] if name in fields}


def _meaning(declared: EntityField | EventField) -> str:
    told = [str(value) for value in declared.model_dump(include={"kind", "unit", "of", "dimension"}).values()]
    return " ".join([*told, *(["in buckets"] if isinstance(declared, BucketedField) and (declared.buckets or declared.edges) else [])])


def save_field_rows(model: RetrievalModel, path: Path) -> None:
    """Write what the rows of the fields' tables stand for."""
    tables = [pl.DataFrame({"table": name, "row": vectors.rows}) for name, vectors in model.field_tables.items()]
    pl.concat([pl.DataFrame(schema={"table": pl.String, "row": pl.String}), *tables]).write_parquet(path)


def _field_rows(model: RetrievalModel, start: Artifact) -> dict[str, np.ndarray[Any, np.dtype[np.int64]]]:
    """The start model's row of every row of a field's table, -1 for a value that it did not know."""
    if not model.field_tables:
        return {}
    known = pl.read_parquet(start.file(FIELD_ROWS))
    return {name: matching_rows(known.filter(pl.col("table") == name)["row"], vectors.rows) for name, vectors in model.field_tables.items()}


def matching_rows(known: pl.Series, wanted: pl.Series) -> np.ndarray[Any, np.dtype[np.int64]]:
    """For every name of a row the known row of that name, -1 for none.

    A bucket of quantiles takes the one at its place in a field that had fewer or more of them: ties come and go.
    """
    rows = rows_of(known, wanted).copy()
    old, new = (_places(names) for names in (known, wanted))
    # Of so many buckets the middle of the i-th lies in this one of `count_right`.
    place = (2 * pl.col("place") - 1) * pl.col("count_right") // (2 * pl.col("count")) + 1
    sizes = old.group_by("field").agg(pl.col("count").first())
    moved = new.filter(pl.Series(rows < 0)[new["row"]]).join(sizes, on="field").select("row", "field", place=place)
    found = moved.join(old, on=["field", "place"])
    rows[found["row"].to_numpy()] = found["row_right"].to_numpy()
    return rows


def _places(names: pl.Series) -> pl.DataFrame:
    """The rows that are buckets of quantiles: field, place and how many places there are."""
    parts = names.str.extract_groups(r"^(?<field>[^=]*)#(?<place>\d+)/(?<count>\d+)$").struct.unnest()
    return parts.with_row_index("row").drop_nulls("field").with_columns(pl.col("row", "place", "count").cast(pl.Int64))


def _refuse_other_settings(recipe: Recipe, start: Artifact) -> None:
    for name, (now, was) in other_settings(recipe, start).items():
        _refuse(name, now, was, start)


def _learned(model: RetrievalModel, state: Mapping[str, _Value]) -> dict[str, _Value]:
    return {name: value for name, value in state.items() if name not in model.counted}


def _refuse_other_shapes(model: RetrievalModel, old: dict[str, tuple[int, ...]], new: dict[str, tuple[int, ...]], start: Artifact) -> None:
    """What settings do not tell: the model was written by another version."""
    rows = model.per_item | model.field_tables.keys()
    shapes = [{name: shape[1:] if name in rows else shape for name, shape in state.items()} for state in (new, old)]
    for name in sorted(shapes[0].keys() | shapes[1].keys()):
        now, was = (each.get(name) for each in shapes)
        if now != was:
            _refuse(f"the shape of {name}", now, was, start)


def _refuse(name: str, now: Any, was: Any, start: Artifact) -> None:
    raise UsageError(
        f"{name} is {now!r}, the model to start from has {was!r}",
        where=f"train.start_from = {start.path}",
        remedy="train anew, or with that model's settings",
    )
