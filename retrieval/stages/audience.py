"""Whom lists are made for."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from retrieval.core.artifacts import sha256_of
from retrieval.core.errors import DataContractError, UsageError
from retrieval.core.logging import get_logger
from retrieval.core.settings import Settings
from retrieval.data.dataset import Dataset
from retrieval.stages.id_files import rows_in

Rows = NDArray[np.int64]
log = get_logger("recall")


@dataclass(frozen=True)
class Audience:
    """Users to make lists for: rows, how many of their events are visible, and which part of the split they stand for."""

    users: Rows
    visible: Rows
    parts: NDArray[np.str_]
    at_the_cut: bool = False
    """Whether they are seen as they looked before their hidden targets."""

    def of(self, places: Rows | slice) -> "Audience":
        """The users at some places, in that order."""
        return Audience(self.users[places], self.visible[places], self.parts[places], self.at_the_cut)

    def pieces(self, size: int) -> Iterator["Audience"]:
        """The same users in order, `size` at a time."""
        for first in range(0, len(self.users), size):
            yield self.of(slice(first, first + size))

    def share(self, number: int, of: int, batch: int) -> "Audience":
        """Share `number` (from 1) of so many: users side by side, whole batches, all shares together everyone once."""
        batches = -(-len(self.users) // batch)
        return self.of(slice(batches * (number - 1) // of * batch, batches * number // of * batch))


def everyone(dataset: Dataset) -> Audience:
    """All users, with all of their events."""
    return _whole(np.arange(dataset.sequences.n_users), dataset)


def held_out(dataset: Dataset) -> Audience:
    """The users with hidden targets, as they look at the cut; a user of both parts stands for the test part."""
    split = dataset.split
    test, valid = split.test_end > split.test_start, split.valid_end > split.valid_start
    users = np.flatnonzero(test | valid)
    visible = np.where(test[users], split.test_start[users], split.valid_start[users])
    return Audience(users, visible, np.where(test[users], "test", "valid"), at_the_cut=True)


class Scope(Settings):
    """`held-out`: the users of the split's validation and test parts as they looked at the cut, with diagnostics.
    `all`: everyone with the whole history, which is what a nightly run serves. `file`: the user ids in a file.
    Of these users share `shard` of `shards`, from 1.
    """

    who: Literal["held-out", "all", "file"] = "held-out"
    file_sha256: str = ""
    path: str = ""
    shard: int = Field(1, ge=1)
    shards: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _is_a_shard(self) -> "Scope":
        if self.shard > self.shards:
            raise ValueError(f"shard {self.shard} of {self.shards}")
        return self

    def of_shards(self, number: int, of: int) -> "Scope":
        """Share `number` of so many of the same users."""
        return self.model_copy(update={"shard": number, "shards": of})

    @staticmethod
    def of_file(path: Path) -> "Scope":
        """The users listed in a file: one id a line, or a CSV or parquet file with a column user_id."""
        if not path.is_file():
            raise UsageError("no such file", where=path, expected="a file of user ids")
        return Scope(who="file", path=str(path), file_sha256=sha256_of(path))

    def audience(self, dataset: Dataset) -> Audience:
        """The rows of the users.

        Raises:
            DataContractError: the file names nobody, or nobody of the log.
        """
        if self.who == "file":
            return _listed(Path(self.path), dataset)
        return everyone(dataset) if self.who == "all" else held_out(dataset)


def _listed(path: Path, dataset: Dataset) -> Audience:
    rows = rows_in(path, "user_id", dataset.users["user_id"])
    unknown = int((rows < 0).sum())
    if unknown == len(rows):
        what = f"none of {unknown} users is in the log" if unknown else "names no user"
        raise DataContractError(what, where=path, expected="user ids of the dataset", remedy="check the ids, or prepare a newer log")
    if unknown:
        # Who registered after the log was prepared must not cost the others their lists.
        log.warning("a list names users who are not in the log", file=str(path), unknown=unknown, known=len(rows) - unknown)
    return _whole(np.unique(rows[rows >= 0]), dataset)


def _whole(rows: Rows, dataset: Dataset) -> Audience:
    return Audience(rows, dataset.sequences.lengths[rows], np.full(len(rows), "all"))
