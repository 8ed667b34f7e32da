"""A prepared dataset, read from its artifact."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import polars as pl

from retrieval.core.artifacts import Artifact
from retrieval.core.errors import IntegrityError
from retrieval.data.catalog import Catalog, SortedIds
from retrieval.data.fields.store import Fields
from retrieval.data.sequences import SequenceDataset
from retrieval.data.splits import Split


@dataclass(frozen=True)
class Dataset:
    """Catalog, users, sequences and split; rows of users and items are positions in their tables."""

    catalog: Catalog
    users: pl.DataFrame
    """user_id (Int64 or String), events (Int64) and field_<name>; sorted by user_id; [U]."""
    sequences: SequenceDataset
    split: Split
    fields: Fields = field(default_factory=Fields.none)
    in_seconds: bool = True
    """Whether times are epoch seconds; else the order of the log."""

    @cached_property
    def user_ids(self) -> SortedIds:
        """Rows of users by their ids, for those who ask a piece at a time."""
        return SortedIds(self.users["user_id"])

    @classmethod
    def open(cls, artifact: Artifact) -> "Dataset":
        """Read a dataset; events stay on disk until they are used.

        Raises:
            IntegrityError: a file is missing or changed, or the files do not belong together.
        """
        dataset = cls(
            catalog=Catalog.load(artifact.file("items.parquet")),
            users=pl.read_parquet(artifact.file("users.parquet")),
            sequences=_sequences(artifact),
            split=Split.load(artifact.file("split.parquet")),
            fields=Fields.open(artifact),
            in_seconds=artifact.summary["time"]["unit"] == "seconds",
        )
        if not dataset.sequences.n_users == dataset.users.height == len(dataset.split.train_end):
            raise IntegrityError("users, sequences and split differ in length", where=artifact.path, remedy="run prepare again")
        return dataset


def _sequences(artifact: Artifact) -> SequenceDataset:
    return SequenceDataset.load(
        artifact.file("offsets.npy"),
        artifact.file("items.npy"),
        artifact.file("times.npy"),
        _optional(artifact, "weights.npy"),
        _optional(artifact, "kinds.npy"),
    )


def _optional(artifact: Artifact, name: str) -> Path | None:
    return artifact.file(name) if name in artifact.manifest.files else None
