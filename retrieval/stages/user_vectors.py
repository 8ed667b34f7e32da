"""What answers for users: their interests, by rows of the dataset, whoever made the vectors."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrieval.data.dataset import Dataset
from retrieval.data.splits import ranges
from retrieval.stages.audience import Audience, Rows

PART_USERS = 65_536
"""Users of a part, at most, where a batch is not larger."""


def part_users(batch_users: int, most: int) -> int:
    """Users of a part: whole batches, so that what is served, exported or shared out is encoded in the same ones."""
    return batch_users * max(1, most // batch_users)


@dataclass(frozen=True)
class VisibleEvents:
    """What the users of a batch did as far as it may be known, as CSR: user u's are [offsets[u], offsets[u+1])."""

    offsets: Rows
    positions: Rows
    """Of the events in the dataset's sequences."""
    items: NDArray[np.int32]


@dataclass(frozen=True)
class UserInterests:
    """Interests float32 [B,K,D], valid bool [B,K], and routing float32 [B,K,L] where the vectors were made from events here."""

    vectors: NDArray[np.float32]
    valid: NDArray[np.bool_]
    routing: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class EncodedUsers:
    """Interests float32 [B,K,D], valid bool [B,K], routing float32 [B,K,L] and the visible history as CSR."""

    audience: Audience
    vectors: NDArray[np.float32]
    valid: NDArray[np.bool_]
    routing: NDArray[np.float32] | None
    offsets: Rows
    items: NDArray[np.int32]


class AbstractUserVectors(ABC):
    """The interests of any users of a dataset. A user without a valid interest is a stranger, who gets what is popular."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    @property
    @abstractmethod
    def columns(self) -> Mapping[str, int]:
        """What a vector consists of, in order: a name and the number of its dimensions."""

    @property
    @abstractmethod
    def history(self) -> int:
        """How many of the newest events `routing` speaks of."""

    def answers_for(self, audience: Audience) -> bool:  # noqa: ARG002 (whoever reads histories answers for all)
        """Whether there are vectors of users as this audience sees them."""
        return True

    @abstractmethod
    def _interests(self, audience: Audience, events: VisibleEvents) -> UserInterests:
        """The interests of B users."""

    def batches(self, audience: Audience, size: int) -> Iterator[EncodedUsers]:
        """The users of an audience in its order, at most `size` at a time."""
        for piece in audience.pieces(size):
            yield self._batch(piece)

    def _batch(self, audience: Audience) -> EncodedUsers:
        sequences = self.dataset.sequences
        positions, _ = ranges(sequences.offsets[:-1][audience.users], audience.visible)
        offsets = np.concatenate([[0], np.cumsum(audience.visible)])
        events = VisibleEvents(offsets, positions, np.asarray(sequences.items[positions]))
        found = self._interests(audience, events)
        return EncodedUsers(audience, found.vectors, found.valid, found.routing, offsets, events.items)


def vectors_frame(names: pl.Series, encoded: EncodedUsers) -> pl.DataFrame:
    """user_id, interest (int32) and vector (D float32) of every valid interest, in order of user and interest; `names` [B]."""
    owner, interest = np.nonzero(encoded.valid)
    return pl.DataFrame(
        {
            "user_id": names.gather(owner),
            "interest": interest.astype(np.int32),
            "vector": pl.Series(encoded.vectors[owner, interest], dtype=pl.Array(pl.Float32, encoded.vectors.shape[2])),
        }
    )


def routing_entropy(routing: NDArray[np.float32]) -> NDArray[np.float32]:
    """How evenly an interest draws on the history: entropy over the events / log(events), float32 [B,K]; 0 for one event."""
    total = routing.sum(axis=2, keepdims=True)
    share = np.divide(routing, total, out=np.zeros_like(routing), where=total > 0)
    entropy = -(share * np.log(share, out=np.zeros_like(share), where=share > 0)).sum(axis=2)
    events = np.maximum((routing.max(axis=1) > 0).sum(axis=1), 2)
    ratio: NDArray[np.float32] = (entropy / np.log(events)[:, None]).astype(np.float32)
    return ratio
