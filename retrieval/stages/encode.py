"""From histories to interests: the one place where a trained model meets users."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from retrieval.data.dataset import Dataset
from retrieval.models.histories import Histories, gather_histories
from retrieval.models.retrieval_model import AbstractRetrievalModel
from retrieval.stages.audience import Audience
from retrieval.stages.user_vectors import AbstractUserVectors, UserInterests, VisibleEvents


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

    @torch.no_grad()
    def _interests(self, audience: Audience, events: VisibleEvents) -> UserInterests:
        found = self.model.interests(self._histories(events))
        valid = found.valid.cpu().numpy() & (audience.visible > 0)[:, None]
        routing = None if found.routing is None else found.routing.float().cpu().numpy()
        return UserInterests(found.vectors.float().cpu().numpy(), valid, routing)

    def _histories(self, events: VisibleEvents) -> Histories:
        device = next(iter(self.model.state_dict().values())).device
        times = np.asarray(self.dataset.sequences.times[events.positions])
        # One event more than there are, so that a batch without any event still has something to gather.
        padded = (np.append(events.items, np.int32(0)), np.append(times, np.int64(0)), events.offsets[:-1], events.offsets[1:])
        tensors: list[Tensor] = [torch.from_numpy(array).to(device) for array in padded]
        return gather_histories(tensors[0], tensors[1], tensors[2], tensors[3], self.model.history)
