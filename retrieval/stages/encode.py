"""From user rows to interests, batch by batch: the one place where a trained model meets users."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrieval.data.dataset import Dataset
from retrieval.data.splits import ranges
from retrieval.models.histories import gather_histories
from retrieval.models.interests import Interests
from retrieval.models.retrieval_model import AbstractRetrievalModel

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Audience:
    """Users to make lists for: rows, how many of their events are visible, and which part of the split they stand for."""

    users: Rows
    visible: Rows
    parts: NDArray[np.str_]

    def pieces(self, size: int) -> Iterator["Audience"]:
        """The same users in order, `size` at a time."""
        for first in range(0, len(self.users), size):
            part = slice(first, first + size)
            yield Audience(self.users[part], self.visible[part], self.parts[part])


@dataclass(frozen=True)
class EncodedUsers:
    """Interests float32 [B,K,D], valid bool [B,K], routing float32 [B,K,L] and the visible history as CSR."""

    audience: Audience
    vectors: NDArray[np.float32]
    valid: NDArray[np.bool_]
    routing: NDArray[np.float32] | None
    offsets: Rows
    items: NDArray[np.int32]


def everyone(dataset: Dataset) -> Audience:
    """All users, with all of their events."""
    lengths = dataset.sequences.lengths
    return Audience(np.arange(len(lengths)), lengths, np.full(len(lengths), "all"))


def held_out(dataset: Dataset) -> Audience:
    """The users with hidden targets, as they look at the cut; a user of both parts stands for the test part."""
    split = dataset.split
    test, valid = split.test_end > split.test_start, split.valid_end > split.valid_start
    users = np.flatnonzero(test | valid)
    visible = np.where(test[users], split.test_start[users], split.valid_start[users])
    return Audience(users, visible, np.where(test[users], "test", "valid"))


@torch.no_grad()
def encode(model: AbstractRetrievalModel, dataset: Dataset, audience: Audience, batch_users: int) -> Iterator[EncodedUsers]:
    """Interests of the audience in batches of `batch_users`, in its order.

    A user without a visible event has no valid interest.
    """
    for piece in audience.pieces(batch_users):
        yield _encode(model, dataset, piece)


def _encode(model: AbstractRetrievalModel, dataset: Dataset, audience: Audience) -> EncodedUsers:
    sequences = dataset.sequences
    positions, _ = ranges(sequences.offsets[:-1][audience.users], audience.visible)
    offsets = np.concatenate([[0], np.cumsum(audience.visible)])
    items, times = np.asarray(sequences.items[positions]), np.asarray(sequences.times[positions])
    interests = _interests(model, items, times, offsets)
    valid = interests.valid.cpu().numpy() & (audience.visible > 0)[:, None]
    routing = None if interests.routing is None else interests.routing.float().cpu().numpy()
    return EncodedUsers(audience, interests.vectors.float().cpu().numpy(), valid, routing, offsets, items)


def _interests(model: AbstractRetrievalModel, items: NDArray[np.int32], times: Rows, offsets: Rows) -> Interests:
    device = next(iter(model.state_dict().values())).device
    # One event more than there are, so that a batch without any event still has something to gather.
    padded_items, padded_times = np.append(items, np.int32(0)), np.append(times, np.int64(0))
    tensors: list[Tensor] = [torch.from_numpy(array).to(device) for array in (padded_items, padded_times, offsets[:-1], offsets[1:])]
    return model.interests(gather_histories(tensors[0], tensors[1], tensors[2], tensors[3], model.history))


def routing_entropy(routing: NDArray[np.float32]) -> NDArray[np.float32]:
    """How evenly an interest draws on the history: entropy over the events / log(events), float32 [B,K]; 0 for one event."""
    total = routing.sum(axis=2, keepdims=True)
    share = np.divide(routing, total, out=np.zeros_like(routing), where=total > 0)
    entropy = -(share * np.log(share, out=np.zeros_like(share), where=share > 0)).sum(axis=2)
    events = np.maximum((routing.max(axis=1) > 0).sum(axis=1), 2)
    ratio: NDArray[np.float32] = (entropy / np.log(events)[:, None]).astype(np.float32)
    return ratio
