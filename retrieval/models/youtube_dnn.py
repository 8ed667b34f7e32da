"""YouTubeDNN: the mean of the history through layers (Covington et al., RecSys 2016)."""

import torch
from jaxtyping import Float
from torch import Tensor

from retrieval.models.encoder import AbstractUserEncoder
from retrieval.models.histories import Histories
from retrieval.models.interests import Interests
from retrieval.models.layers import feed_forward
from retrieval.models.settings import YouTubeDNNSettings


class YouTubeDNN(AbstractUserEncoder):
    """Masked mean -> layers with ReLU, the last one linear. One interest.

    Differs from the paper: the user's profile is added behind the layers (`UserFields`), there is no example age, and the last layer is
    linear, because a ReLU would confine the user to the positive orthant of the item space.
    """

    def __init__(self, settings: YouTubeDNNSettings) -> None:
        super().__init__()
        self.layers = feed_forward(settings.dimension, settings.layers)

    def forward(self, events: Float[Tensor, "B L D"], histories: Histories) -> Interests:
        count = histories.lengths.clamp(min=1)[:, None]
        mean = events.sum(dim=1) / count
        return _single(self.layers(mean), (histories.valid / count)[:, None, :])

    def prefixes(self, events: Float[Tensor, "B L D"], histories: Histories) -> Interests:
        count = histories.valid.cumsum(dim=1).clamp(min=1)
        running = events.cumsum(dim=1) / count[:, :, None]
        return _single(self.layers(running.flatten(0, 1)), None)


def _single(vectors: Float[Tensor, "B D"], weights: Float[Tensor, "B 1 L"] | None) -> Interests:
    return Interests(vectors[:, None, :], vectors.new_ones(len(vectors), 1, dtype=torch.bool), weights)
