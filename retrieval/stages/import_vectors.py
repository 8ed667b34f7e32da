"""Vectors that somebody else trained, in the order of the dataset: what stands in for a trained model."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrieval.core.arrays import create_array, save_array
from retrieval.core.artifacts import Artifact, StagedArtifact, write_json
from retrieval.core.errors import DataContractError, UsageError
from retrieval.core.logging import get_logger
from retrieval.data.catalog import rows_of
from retrieval.data.dataset import Dataset
from retrieval.data.splits import ranges
from retrieval.models.settings import ImportedSettings
from retrieval.stages.audience import Audience, Rows, held_out
from retrieval.stages.user_vectors import AbstractUserVectors, UserInterests, VisibleEvents
from retrieval.stages.vector_files import VectorFiles

_SHOWN_EVENTS = 20
log = get_logger("import")


def files_of(settings: ImportedSettings) -> dict[str, VectorFiles]:
    """The tables that the settings name."""
    keys = {"items": "item_id", "users": "user_id", "held_out": "user_id"}
    paths = {name: getattr(settings, name) for name in keys}
    return {name: VectorFiles(Path(path), keys[name], f"model.{name}") for name, path in paths.items() if path}


def import_inputs(settings: ImportedSettings) -> dict[str, str]:
    """The sha256 of every file, by table and name; where they lie does not matter.

    Raises:
        UsageError: there is no such file. IntegrityError: a file of an export is not what its manifest says.
    """
    found = {name: files.fingerprint() for name, files in files_of(settings).items()}
    return {f"{name}: {file}": digest for name, hashes in found.items() for file, digest in hashes.items()}


def write_imported(settings: ImportedSettings, dataset: Dataset, staged: StagedArtifact) -> None:
    """Write items.npy float32 [N,D] (zeros where there is none), known.npy bool [N], and of users and held_out their vectors.

    Held at once: ids, and a block of vectors. Ids that the dataset does not have are counted and left out.

    Raises:
        DataContractError: a file is damaged, dimensions differ, a number is not finite, an id is there twice, or none
            of the ids is known.
    """
    tables = files_of(settings)
    dimensions = {name: files.dimension for name, files in tables.items()}
    if len(set(dimensions.values())) > 1:
        shown = ", ".join(f"{name} {dimension}" for name, dimension in dimensions.items())
        raise DataContractError(f"vectors have different dimensions: {shown}", where="model", expected="the same for items and users")
    interests = [_write_users(name, files, dataset, staged) for name, files in tables.items() if name != "items"]
    _write_items(tables["items"], dataset, staged)
    write_json(staged.path("history.json"), [])
    staged.summary |= {
        "model": settings.name,
        "dimension": dimensions["items"],
        "interests": max(interests),
        "catalog_fingerprint": dataset.catalog.fingerprint,
    }


def _write_items(files: VectorFiles, dataset: Dataset, staged: StagedArtifact) -> None:
    keys = files.keys()
    if (keys["interest"] > 0).any():
        raise DataContractError("an item has one vector", where=files.path, expected="no column 'interest'")
    rows, n_items = dataset.catalog.rows_of(keys["item_id"]), dataset.catalog.n_items
    _refuse_duplicates(files, keys, rows)
    known = np.zeros(n_items, dtype=bool)
    known[rows[rows >= 0]] = True
    _place(files, rows, staged.path("items.npy"), n_items)
    save_array(staged.path("known.npy"), known)
    staged.summary["items"] = _counts(files, known, rows, dataset.catalog.item_ids)


def _write_users(name: str, files: VectorFiles, dataset: Dataset, staged: StagedArtifact) -> int:
    """Write the vectors of users in order of user and interest; one more than the largest interest."""
    keys, ids = files.keys(), dataset.users["user_id"]
    rows, interest = rows_of(ids, keys["user_id"]), keys["interest"].to_numpy()
    _refuse_duplicates(files, keys, rows)
    known = np.flatnonzero(rows >= 0)
    order = known[np.lexsort((interest[known], rows[known]))]
    place = np.full(len(rows), -1)
    place[order] = np.arange(len(order))
    counts = np.bincount(rows[known], minlength=len(ids))
    _place(files, place, staged.path(f"{name}.npy"), len(order))
    save_array(staged.path(f"{name}_interests.npy"), interest[order])
    save_array(staged.path(f"{name}_offsets.npy"), np.concatenate([[0], np.cumsum(counts)]))
    staged.summary[name] = _counts(files, counts > 0, rows, ids)
    return int(interest.max(initial=0)) + 1


def _place(files: VectorFiles, places: Rows, path: Path, count: int) -> None:
    """Write the vectors to their places; those with place -1 are left out."""
    matrix, first = create_array(path, (count, files.dimension), np.float32), 0
    for block in files.blocks():
        there = places[first : first + len(block)]
        matrix[there[there >= 0]] = block[there >= 0]
        first += len(block)
    if first != len(places):
        raise DataContractError(f"{first} vectors for {len(places)} ids", where=files.path, remedy="write the files again")


def _refuse_duplicates(files: VectorFiles, keys: pl.DataFrame, rows: Rows) -> None:
    """Rows and not ids, because 7 and "7" are one item."""
    found = pl.DataFrame({"row": rows, "interest": keys["interest"]})
    again = ((found["row"] >= 0) & ~found.to_struct().is_first_distinct()).to_numpy()
    if again.any():
        named = keys[files.key][int(np.argmax(again))]
        remedy = "keep one row of each" if files.key == "item_id" else "keep one row of each, or number a user's in a column 'interest'"
        raise DataContractError(
            f"{int(again.sum())} rows repeat an id, the first {files.key} {named!r}",
            where=files.path,
            expected="one vector each",
            remedy=remedy,
        )


def _counts(files: VectorFiles, has_vector: NDArray[np.bool_], rows: Rows, known_ids: pl.Series) -> dict[str, int]:
    """What is known and what is not, said aloud where there is something to say."""
    found = {"known": int(has_vector.sum()), "unknown_rows": int((rows < 0).sum()), "without_vector": int((~has_vector).sum())}
    if not has_vector.any():
        raise DataContractError(
            f"none of {len(rows)} rows has an id of the dataset",
            where=files.path,
            expected=f"{files.key} of the log, such as {known_ids[0]!r}" if len(known_ids) else "ids of the log",
            remedy=f"check {files.setting}",
        )
    if found["unknown_rows"] or found["without_vector"]:
        log.warning("vectors and dataset name different ids", file=str(files.path), **found)
    return found


def write_item_vectors(model: Artifact, staged: StagedArtifact) -> None:
    """Write items.npy and known.npy as the vectors that an index is built from."""
    for name in ("items.npy", "known.npy"):
        save_array(staged.path(name), np.load(model.file(name), mmap_mode="r", allow_pickle=False))
    staged.summary |= {
        "items": model.summary["items"]["known"] + model.summary["items"]["without_vector"],
        "dimension": model.summary["dimension"],
        "model_id": model.id,
        "catalog_fingerprint": model.summary["catalog_fingerprint"],
    }


@dataclass(frozen=True)
class _Table:
    """Users' vectors float32 [M,D], which interest each is int32 [M], and where each user's lie int64 [U + 1]."""

    vectors: NDArray[np.float32]
    interests: NDArray[np.int32]
    offsets: Rows


class ImportedVectors(AbstractUserVectors):
    """Interests that were imported: as users look now, and as held-out users looked at the cut."""

    def __init__(self, model: Artifact, dataset: Dataset) -> None:
        super().__init__(dataset)
        self._dimension, self._slots = model.summary["dimension"], model.summary["interests"]
        held = held_out(dataset)
        # As many events as the held-out vectors may know.
        self._cut = np.full(dataset.sequences.n_users, -1)
        self._cut[held.users] = held.visible
        self._tables = {name: _table(model, name) for name in ("users", "held_out") if name in model.summary}

    @property
    def columns(self) -> Mapping[str, int]:
        return {"imported": self._dimension}

    @property
    def history(self) -> int:
        return _SHOWN_EVENTS

    def answers_for(self, audience: Audience) -> bool:
        if not audience.at_the_cut:
            return "users" in self._tables
        return "held_out" in self._tables and bool((self._cut[audience.users] == audience.visible).all())

    def _interests(self, audience: Audience, events: VisibleEvents) -> UserInterests:
        del events
        table = self._table(audience)
        first = table.offsets[audience.users]
        places, owner = ranges(first, table.offsets[audience.users + 1] - first)
        shape = (len(audience.users), self._slots)
        vectors, valid = np.zeros((*shape, self._dimension), np.float32), np.zeros(shape, np.bool_)
        slots = table.interests[places]
        vectors[owner, slots], valid[owner, slots] = table.vectors[places], True
        return UserInterests(vectors, valid)

    def _table(self, audience: Audience) -> _Table:
        name = "held_out" if audience.at_the_cut else "users"
        if name in self._tables:
            return self._tables[name]
        if audience.at_the_cut:
            what, setting = "held-out users are judged by vectors that know nothing of their hidden events", "model.held_out"
        else:
            what, setting = "there are no vectors of users as they look now", "model.users"
        raise UsageError(what, where=setting, expected="files of vectors", remedy=f"set {setting}")


def _table(model: Artifact, name: str) -> _Table:
    arrays: Iterator[Any] = (
        np.load(model.file(f"{name}{part}.npy"), mmap_mode="r", allow_pickle=False) for part in ("", "_interests", "_offsets")
    )
    return _Table(*arrays)
