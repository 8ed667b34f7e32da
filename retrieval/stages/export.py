"""embed --export: the vectors of items and users as numbered files, for whoever serves or studies them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import polars as pl
from pydantic import Field

from retrieval.core.arrays import save_array
from retrieval.core.artifacts import Artifact, StagedArtifact
from retrieval.core.parts import ResumableParts, resumable_parts
from retrieval.core.progress import progress
from retrieval.core.settings import Settings
from retrieval.data.dataset import Dataset
from retrieval.recall.writer import write_frame
from retrieval.stages.audience import Audience, Scope
from retrieval.stages.build_index import load_vectors
from retrieval.stages.user_vectors import PART_USERS, AbstractUserVectors, part_users, vectors_frame

_SCORE = "the largest inner product of the item's vector with one of the user's"


class ExportSettings(Settings):
    """users: whose vectors are exported beside the items', None for nobody's. shard_rows: vectors in a file, at most."""

    users: Scope | None = None
    format: Literal["parquet", "npy"] = "parquet"
    shard_rows: int = Field(250_000, ge=1)


@dataclass(frozen=True)
class Exported:
    """What is exported. `batch_users` are the users encoded at once, as recall encodes them."""

    dataset: Dataset
    vectors: Artifact
    users: AbstractUserVectors
    batch_users: int


def export_identity(settings: ExportSettings, batch_users: int) -> dict[str, Any]:
    """What an export is a function of, besides its vectors; matrix products of another batch round differently."""
    found = settings.model_dump(mode="json", exclude={"users": {"path"}})
    return {**found, "batch_users": batch_users} if settings.users else found


def write_export(source: Exported, settings: ExportSettings, staged: StagedArtifact) -> None:
    """Write items/part-*: item_id and vector, and with users users/part-*: user_id, interest and vector, of valid interests.

    Vectors are float32 and as they are scored: an inner product of two of them is the score that is served. With
    `npy` the vectors of part-N.npy belong to the rows of part-N.parquet. A file holds whole users, and rows lie in
    the order of the dataset. Held at once: the vectors of a file and those of a batch of users. What a killed process
    has finished of the users is not encoded again.

    Raises:
        ConflictError: another process writes the same export.
    """
    vectors = source.vectors.summary
    audience = settings.users.audience(source.dataset) if settings.users else None
    staged.summary |= {
        "format": settings.format,
        "dtype": "float32",
        "dimension": vectors["dimension"],
        "columns": dict(source.users.columns),
        "score": _SCORE,
        "model_id": vectors["model_id"],
        "vectors_id": source.vectors.id,
        "catalog_fingerprint": vectors["catalog_fingerprint"],
        "items": _write_files(_item_frames(source, settings.shard_rows), "items", 0, settings, staged)["rows"],
    }
    if audience is not None and settings.users is not None:
        with resumable_parts(staged, "export") as parts, progress("embed", len(audience.users)) as bar:
            rows = 0
            for written in _write_users(source, audience, settings, parts):
                rows += written["rows"]
                bar.advance(written["users"])
        staged.summary |= {"scope": settings.users.who, "users": len(audience.users), "user_vectors": rows}


def _item_frames(source: Exported, size: int) -> Iterator[pl.DataFrame]:
    matrix, ids = load_vectors(source.vectors), source.dataset.catalog.item_ids
    for first in range(0, len(matrix), size):
        rows = slice(first, first + size)
        vectors = pl.Series(np.array(matrix[rows]), dtype=pl.Array(pl.Float32, matrix.shape[1]))
        yield pl.DataFrame({"item_id": ids[rows], "vector": vectors})


def _write_users(source: Exported, audience: Audience, settings: ExportSettings, parts: ResumableParts) -> Iterator[dict[str, Any]]:
    """Export the users in parts that a process can go on after; what became of each part."""
    file, size = 0, part_users(source.batch_users, PART_USERS)
    # A folder without a file could not be read as a table of nobody.
    for number, piece in enumerate(audience.pieces(size) if len(audience.users) else [audience]):
        written = parts.ensure(f"users-{number:05d}", partial(_write_part, source, piece, file, settings))
        file += written["files"]
        yield written


def _write_part(source: Exported, piece: Audience, file: int, settings: ExportSettings, part: StagedArtifact) -> None:
    written = _write_files(_user_frames(source, piece), "users", file, settings, part)
    part.summary |= {**written, "users": len(piece.users)}


def _user_frames(source: Exported, audience: Audience) -> Iterator[pl.DataFrame]:
    names, dimension = source.dataset.users["user_id"], source.vectors.summary["dimension"]
    yield pl.DataFrame(schema={"user_id": names.dtype, "interest": pl.Int32, "vector": pl.Array(pl.Float32, dimension)})
    for encoded in source.users.batches(audience, source.batch_users):
        yield vectors_frame(names.gather(encoded.audience.users), encoded)


def _write_files(frames: Iterator[pl.DataFrame], kind: str, first: int, settings: ExportSettings, staged: StagedArtifact) -> dict[str, int]:
    """Write frames as files of the settings' size, numbered from `first`; how many rows in how many files."""
    rows, number = 0, first - 1
    for number, file in enumerate(_cut_up(frames, settings.shard_rows), first):
        name, ids = f"{kind}/part-{number:05d}", file.drop("vector")
        if settings.format == "npy":
            save_array(staged.path(f"{name}.npy"), file["vector"].to_numpy())
        write_frame(ids if settings.format == "npy" else file, staged.path(f"{name}.parquet"))
        rows += file.height
    return {"rows": rows, "files": number + 1 - first}


def _cut_up(frames: Iterator[pl.DataFrame], size: int) -> Iterator[pl.DataFrame]:
    """The same rows in frames of at most `size`, more only where one id alone has more; rows of an id are never parted."""
    held: list[pl.DataFrame] = []
    for frame in frames:
        held.append(frame)
        while sum(each.height for each in held) > size:
            whole = pl.concat(held)
            cut = _cut(whole, size)
            yield whole[:cut]
            held = [whole[cut:]] if cut < whole.height else []
    if held:
        yield pl.concat(held)


def _cut(frame: pl.DataFrame, size: int) -> int:
    """Where the id begins that does not fit into `size` rows; where it ends, if it is the first."""
    ids = frame.to_series(0).rle_id()
    first, past = ids.search_sorted(ids[size], "left"), ids.search_sorted(0, "right")
    return int(first) or int(past)
