"""From histories to interests: the one place where a trained model meets users."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrieval.data.dataset import Dataset
from retrieval.data.splits import ranges
from retrieval.models.histories import Histories, Owners, gather_histories
from retrieval.models.retrieval_model import AbstractRetrievalModel
from retrieval.stages.audience import Audience, Rows
from retrieval.stages.user_vectors import AbstractUserVectors, UserInterests, VisibleEvents

_USERS_AT_ONCE = 64
"""On a CPU: so few that their states stay in the second cache."""
_USERS_IN_ORDER = 1024
"""On a CPU: users who are put in order of their lengths together, so that batches of so many, or of a multiple, encode the same ones at
once: products of other shapes round differently."""


class EncodedHistories(AbstractUserVectors):
    """Interests that a trained model reads from visible events; a user without one has no valid interest."""

    def __init__(self, model: AbstractRetrievalModel, dataset: Dataset) -> None:
        super().__init__(dataset)
        self.model = model

    @property
    def columns(self) -> Mapping[str, int]:
        return self.model.columns

    @property
    def history(self) -> int:
        return self.model.history

    @property
    def _device(self) -> torch.device:
        tensor: Tensor = next(iter(self.model.state_dict().values()))
        return tensor.device

    def _interests(self, audience: Audience, events: VisibleEvents) -> UserInterests:
        lengths = np.minimum(audience.visible, self.history)
        on_cpu = self._device.type == "cpu"
        # Users of like lengths share a window that is no longer than they need.
        order = np.lexsort((lengths, np.arange(len(lengths)) // _USERS_IN_ORDER)) if on_cpu else np.argsort(lengths, kind="stable")
        size = _USERS_AT_ONCE if on_cpu else len(order)
        parts = [order[first : first + size] for first in range(0, len(order), size)]
        found = [self._encoded(audience.of(part), part, int(lengths[part].max(initial=1)), events) for part in parts]
        together = UserInterests(*(_back_in_order(arrays, order) for arrays in zip(*found, strict=True)))
        known = np.ones(len(order), dtype=np.bool_) if self.model.serves_strangers else audience.visible > 0
        return replace(together, valid=together.valid & known[:, None])

    @torch.no_grad()
    def _encoded(self, some: Audience, part: Rows, length: int, events: VisibleEvents) -> tuple[NDArray[Any] | None, ...]:
        """Vectors, valid and routing of some users, routing as wide as the model's history."""
        found = self.model.interests(self._histories(some, part, length, events))
        routing = None if found.routing is None else _widened(found.routing.float().cpu().numpy(), self.history)
        return found.vectors.float().cpu().numpy(), found.valid.cpu().numpy(), routing

    def _histories(self, some: Audience, part: Rows, length: int, events: VisibleEvents) -> Histories:
        """Windows of some users, who are `part` of those that the events are of."""
        positions, offsets = _newest(part, length, events)
        times = np.asarray(self.dataset.sequences.times[events.positions[positions]])
        # One event more than there are, so that a batch without any event still has something to gather.
        padded = (np.append(events.items[positions], np.int32(0)), np.append(times, np.int64(0)), offsets[:-1], offsets[1:])
        tensors = self._on_device(padded)
        owners = None
        if self.model.reads_context:
            whose = (some.users, offsets[1:] - some.visible, np.append(events.positions[positions], np.int64(0)))
            owners = Owners(*self._on_device(whose))
        return gather_histories(tensors[0], tensors[1], tensors[2], tensors[3], length, owners)

    def _on_device(self, arrays: Iterable[NDArray[Any]]) -> list[Tensor]:
        return [torch.from_numpy(array).to(self._device) for array in arrays]


def _newest(part: Rows, length: int, events: VisibleEvents) -> tuple[Rows, Rows]:
    """Where the last `length` events of some users lie among a batch's, and their offsets there."""
    ends = events.offsets[1:][part]
    counts = np.minimum(ends - events.offsets[:-1][part], length)
    return ranges(ends - counts, counts)[0], np.concatenate([[0], np.cumsum(counts)])


def _widened(routing: NDArray[np.float32], history: int) -> NDArray[np.float32]:
    return np.pad(routing, ((0, 0), (0, 0), (0, history - routing.shape[2])))


def _back_in_order(arrays: tuple[NDArray[Any] | None, ...], order: Rows) -> Any:
    """The rows of the parts as one array, row i of them at order[i]; None where the model gives nothing."""
    present = [each for each in arrays if each is not None]
    if not present:
        return None
    joined = np.concatenate(present)
    back = np.empty_like(joined)
    back[order] = joined
    return back
