"""embed --export: the vectors of items and users as numbered files, for whoever serves or studies them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from pydantic import Field

from retrieval.core.arrays import save_array
from retrieval.core.artifacts import Artifact, StagedArtifact
from retrieval.core.parts import ResumableParts, resumable_parts, write_part
from retrieval.core.progress import progress
from retrieval.core.settings import Settings
from retrieval.data.dataset import Dataset
from retrieval.recall.writer import write_frame
from retrieval.stages.audience import Audience, Scope
from retrieval.stages.build_index import load_vectors
from retrieval.stages.user_vectors import PART_USERS, AbstractUserVectors, part_users, vectors_frame

Elsewhere = Callable[[Path, Sequence[int]], None]
"""Makes users' parts of an export by their numbers, in its scratch space."""
_FILE = "part-"
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


def write_export(source: Exported, settings: ExportSettings, staged: StagedArtifact, elsewhere: Elsewhere | None = None) -> None:
    """Write items/part-*: item_id and vector, and with users users/part-*: user_id, interest and vector, of valid interests.

    Vectors are float32 and as they are scored: an inner product of two of them is the score that is served. With
    `npy` the vectors of part-N.npy belong to the rows of part-N.parquet. A file holds whole users, and rows lie in
    the order of the dataset. Held at once: the vectors of a file and those of a batch of users. What a killed process
    has finished of the users is not encoded again.

    elsewhere: makes those of the users' parts that are not there yet, such as the tasks of a cluster do; they are put together here.

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
        "items": _write_files(_item_frames(source, settings.shard_rows), "items", settings, staged)["rows"],
    }
    if audience is not None and settings.users is not None:
        with resumable_parts(staged, "export") as parts, progress("embed", len(audience.users)) as bar:
            pieces, rows = _pieces(source, audience), 0
            missing = [number for number in range(len(pieces)) if not parts.has(_part(number))]
            if elsewhere is not None and missing:
                elsewhere(staged.scratch(), missing)
            for written in _write_users(source, pieces, settings, parts):
                rows += written["rows"]
                bar.advance(written["users"])
        staged.summary |= {"scope": settings.users.who, "users": len(audience.users), "user_vectors": rows}


def export_part(source: Exported, settings: ExportSettings, scratch: Path, number: int) -> dict[str, Any]:
    """Write one of the users' parts into the scratch space of an export; how many users, rows and files it has.

    Raises:
        ConflictError: another process writes it.
    """
    assert settings.users is not None  # noqa: S101 - without users there are no parts of them
    piece = _pieces(source, settings.users.audience(source.dataset))[number]
    return write_part(scratch, _part(number), partial(_write_part, source, piece, settings))


def _pieces(source: Exported, audience: Audience) -> list[Audience]:
    """The users of every part. A folder without a file could not be read as a table of nobody."""
    return list(audience.pieces(part_users(source.batch_users, PART_USERS))) or [audience]


def _part(number: int) -> str:
    return f"users-{number:05d}"


def _item_frames(source: Exported, size: int) -> Iterator[pl.DataFrame]:
    matrix, ids = load_vectors(source.vectors), source.dataset.catalog.item_ids
    for first in range(0, len(matrix), size):
        rows = slice(first, first + size)
        vectors = pl.Series(np.array(matrix[rows]), dtype=pl.Array(pl.Float32, matrix.shape[1]))
        yield pl.DataFrame({"item_id": ids[rows], "vector": vectors})


def _write_users(source: Exported, pieces: Sequence[Audience], settings: ExportSettings, parts: ResumableParts) -> Iterator[dict[str, Any]]:
    """Export the users in parts that a process can go on after; what became of each part."""
    file = 0
    for number, piece in enumerate(pieces):
        written = parts.ensure(_part(number), partial(_write_part, source, piece, settings), partial(_renumbered, file))
        file += written["files"]
        yield written


def _renumbered(first: int, name: str) -> str:
    """The name of a part's file among those of all parts, `first` of which come before."""
    path = Path(name)
    return f"{path.parent}/{_FILE}{first + int(path.stem.removeprefix(_FILE)):05d}{path.suffix}"


def _write_part(source: Exported, piece: Audience, settings: ExportSettings, part: StagedArtifact) -> None:
    written = _write_files(_user_frames(source, piece), "users", settings, part)
    part.summary |= {**written, "users": len(piece.users)}


def _user_frames(source: Exported, audience: Audience) -> Iterator[pl.DataFrame]:
    names, dimension = source.dataset.users["user_id"], source.vectors.summary["dimension"]
    yield pl.DataFrame(schema={"user_id": names.dtype, "interest": pl.Int32, "vector": pl.Array(pl.Float32, dimension)})
    for encoded in source.users.batches(audience, source.batch_users):
        yield vectors_frame(names.gather(encoded.audience.users), encoded)


def _write_files(frames: Iterator[pl.DataFrame], kind: str, settings: ExportSettings, staged: StagedArtifact) -> dict[str, int]:
    """Write frames as files of the settings' size, numbered from 0; how many rows in how many files."""
    rows = files = 0
    for file in _cut_up(frames, settings.shard_rows):
        name, ids = f"{kind}/{_FILE}{files:05d}", file.drop("vector")
        if settings.format == "npy":
            save_array(staged.path(f"{name}.npy"), file["vector"].to_numpy())
        write_frame(ids if settings.format == "npy" else file, staged.path(f"{name}.parquet"))
        rows, files = rows + file.height, files + 1
    return {"rows": rows, "files": files}


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
