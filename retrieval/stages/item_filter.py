"""Which items a run may give to anybody: one mask from lists of ids, columns of the catalog and what the vectors know."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrieval.core.artifacts import Artifact, sha256_of
from retrieval.core.errors import DataContractError, UsageError
from retrieval.core.logging import get_logger
from retrieval.core.settings import did_you_mean
from retrieval.data.catalog import Catalog
from retrieval.data.dataset import Dataset
from retrieval.recall.settings import ColumnFilter, ItemFilter
from retrieval.stages.audience import everyone, held_out
from retrieval.stages.id_files import rows_in
from retrieval.stages.recipe import Recipe

_DAY = 86_400
Mask = NDArray[np.bool_]
log = get_logger("recall")


@dataclass(frozen=True)
class ItemMask:
    """blocked bool [N]: items nobody gets. counts: how many each rule keeps out, whatever the others do."""

    blocked: Mask
    counts: Mapping[str, int]


def filter_identity(settings: ItemFilter) -> dict[str, Any]:
    """What of a filter lists are a function of: the bytes of its files and not their names.

    Raises:
        UsageError: there is no such file.
    """
    # Taken before anything is looked up: a list that went missing must not pass for no list at all.
    hashes = {name: [sha256_of(_existing(path, name)) for path in getattr(settings, name)] for name in ("block", "allow")}
    where = {name: each.model_dump(mode="json") for name, each in settings.where.items()}
    return {**hashes, "where": where}


def item_mask(recipe: Recipe, dataset: Dataset, vectors: Artifact, *, at_the_cut: bool) -> ItemMask:
    """Compile the recipe's filters.

    Where the split cuts in time, items without a training event are left out, too: their vectors are as they were drawn, so whoever
    got one got it by chance. So are items that whoever made the vectors did not have.

    Raises:
        UsageError: a file is missing, a column is not there or cannot be compared so.
        DataContractError: a file is damaged, or no item is left.
    """
    settings, catalog = recipe.recall.filter, dataset.catalog
    rules = _unknown_to_the_model(recipe, dataset, vectors)
    if settings.block:
        rules["block"] = _listed(settings.block, "block", catalog)
    if settings.allow:
        rules["allow"] = ~_listed(settings.allow, "allow", catalog)
    for name, each in settings.where.items():
        rules[f"where.{name}"] = ~_passes(name, each, dataset, at_the_cut=at_the_cut)
    return _combined(rules)


def never_given(recipe: Recipe, dataset: Dataset, vectors: Artifact) -> Mask:
    """Items that no list of the model can hold, whatever the recipe filters."""
    rules = _unknown_to_the_model(recipe, dataset, vectors)
    blocked: Mask = np.logical_or.reduce(list(rules.values()))
    return blocked


def _unknown_to_the_model(recipe: Recipe, dataset: Dataset, vectors: Artifact) -> dict[str, Mask]:
    return {"without_vector": _without_vector(vectors), "without_training_event": never_asked_for(recipe, dataset.catalog)}


def never_asked_for(recipe: Recipe, catalog: Catalog) -> Mask:
    """Items without a training event, where the split asks for none of these."""
    without: Mask = catalog.events == 0
    return without & recipe.split.asks_for_known_items


def _combined(rules: Mapping[str, Mask]) -> ItemMask:
    blocked: Mask = np.logical_or.reduce(list(rules.values()))
    counts = {name: int(rule.sum()) for name, rule in rules.items() if rule.any()}
    if blocked.all():
        said = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataContractError(f"no item of {len(blocked)} is left: {said}", where="recall.filter", remedy="relax a filter")
    return ItemMask(blocked, counts)


def _without_vector(vectors: Artifact) -> Mask:
    """Items that stand as zeros in the index."""
    if "known.npy" not in vectors.manifest.files:
        return np.zeros(vectors.summary["items"], dtype=bool)
    known: Mask = np.load(vectors.file("known.npy"), allow_pickle=False)
    return ~known


def _existing(path: str, name: str) -> Path:
    found = Path(path)
    if not found.is_file():
        raise UsageError("no such file", where=found, expected="a file of item ids", remedy=f"check recall.filter.{name}")
    return found


def _listed(paths: Sequence[str], name: str, catalog: Catalog) -> Mask:
    """Items in one of the files."""
    found = np.zeros(catalog.n_items, dtype=bool)
    for path in paths:
        found[_rows(_existing(path, name), catalog)] = True
    return found


def _rows(path: Path, catalog: Catalog) -> NDArray[np.int64]:
    rows = rows_in(path, "item_id", catalog.item_ids)
    unknown = int((rows < 0).sum())
    if unknown:
        # An id that left the catalog is no fault; a file in another format looks the same, so it is said.
        log.warning("a list names ids that the catalog does not have", file=str(path), unknown=unknown, known=len(rows) - unknown)
    return rows[rows >= 0]


def _passes(name: str, rule: ColumnFilter, dataset: Dataset, *, at_the_cut: bool) -> Mask:
    """Items whose column passes a rule; one without a value passes only what excludes values."""
    column = item_column(name, dataset.catalog)
    where = f"recall.filter.where.{name}"
    kind = "names" if column.dtype in (pl.String, pl.List(pl.String)) else "time" if column.dtype == pl.Int64 else "number"
    unfit = {"names": rule.wants_order, "time": rule.wants_names, "number": rule.wants_names or rule.within_days is not None}
    if unfit[kind]:
        names, order = "any_of and none_of", "at_least and at_most" + (", within_days" if kind == "time" else "")
        raise UsageError(f"the column holds {kind}s".replace("ss", "s"), where=where, expected=names if kind == "names" else order)
    passed = _has_names(column, rule, where) if kind == "names" else _in_order(column, rule, dataset, at_the_cut=at_the_cut)
    return passed.to_numpy()


def item_column(name: str, catalog: Catalog) -> pl.Series:
    """`categories`, or a field that the recipe's data.items.fields declare, [N]. Raises UsageError where there is no such column."""
    if name == "categories":
        return catalog.frame["categories"]
    fields = [column.removeprefix("field_") for column in catalog.frame.columns if column.startswith("field_")]
    if name not in fields:
        remedy = f"declare it in data.items.fields{did_you_mean(name, [*fields, 'categories'])}"
        raise UsageError("the catalog has no such column", where=f"recall.filter.where.{name}", remedy=remedy)
    return catalog.frame[f"field_{name}"]


def _has_names(column: pl.Series, rule: ColumnFilter, where: str) -> pl.Series:
    lists = column if column.dtype == pl.List(pl.String) else _as_lists(column)
    _warn_of_absent(lists, [*rule.any_of, *rule.none_of], where)
    wanted = _contains(lists, rule.any_of) if rule.any_of else pl.repeat(value=True, n=len(lists), eager=True)
    return wanted & ~_contains(lists, rule.none_of)


def _as_lists(column: pl.Series) -> pl.Series:
    return pl.select(pl.when(pl.lit(column).is_not_null()).then(pl.concat_list(column))).to_series()


def _contains(lists: pl.Series, names: Sequence[str]) -> pl.Series:
    chosen = pl.Series(list(names), dtype=pl.String).implode()
    return pl.select((pl.lit(lists).list.set_intersection(pl.lit(chosen)).list.len() > 0).fill_null(value=False)).to_series()


def _warn_of_absent(lists: pl.Series, names: Sequence[str], where: str) -> None:
    present = set(lists.explode(empty_as_null=False).drop_nulls().unique())
    for name in set(names) - present:
        # A value may be sold out tonight; one that is misspelt looks the same, so it is said.
        log.warning("no item has the value of a filter", filter=where, value=name, hint=did_you_mean(name, present))


def _in_order(column: pl.Series, rule: ColumnFilter, dataset: Dataset, *, at_the_cut: bool) -> pl.Series:
    passed = column.is_not_null()
    if rule.within_days is not None:
        moment = newest_event(dataset, at_the_cut=at_the_cut)
        passed &= column.is_between(moment - span_of_days(rule.within_days), moment)
    if rule.at_least is not None:
        passed &= column >= _number(rule.at_least)
    if rule.at_most is not None:
        passed &= column <= _number(rule.at_most)
    return passed.fill_null(value=False)


def span_of_days(days: float) -> int:
    """Whole seconds."""
    return round(days * _DAY)


def _number(bound: float | dt.datetime) -> float:
    """Times are epoch seconds; a naive one is UTC."""
    if not isinstance(bound, dt.datetime):
        return bound
    return (bound if bound.tzinfo else bound.replace(tzinfo=dt.UTC)).timestamp()


def newest_event(dataset: Dataset, *, at_the_cut: bool) -> int:
    """The time of the newest event that may be known, of the log or, at the cut, of held-out users; the moment lists are made for.

    Of all users and not of those that lists are made for: a part of them gets the same items.
    """
    audience = held_out(dataset) if at_the_cut else everyone(dataset)
    last = dataset.sequences.offsets[:-1][audience.users] + audience.visible - 1
    return int(dataset.sequences.times[last[audience.visible > 0]].max(initial=0))
