"""ComiRec-DR: dynamic routing with a transform for every position and interest (Cen et al., KDD 2020, section 3.2.1)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from retrieval.models.encoder import AbstractUserEncoder
from retrieval.models.histories import Histories
from retrieval.models.interests import Interests
from retrieval.models.routing import all_prefixes, route, whole_window
from retrieval.models.settings import ComiRecDRSettings


class ComiRecDR(AbstractUserEncoder):
    """Votes W_ij e_i with W [L,K,D,D], routing logits from zero, no layer after the routing.

    The transforms break the symmetry between interests, so zero logits are right here. Differs from the authors'
    code: W starts at N(0, 1/D) (a setting), which needs no special learning rate, and no [B,L,K,D,D] tensor is made.
    """

    routing_logits: Tensor

    def __init__(self, settings: ComiRecDRSettings) -> None:
        super().__init__()
        self.settings = settings
        std = settings.init_std or settings.dimension**-0.5
        shape = (settings.history, settings.dimension, settings.interests * settings.dimension)
        self.transforms = nn.Parameter(torch.randn(shape) * std)
        self.register_buffer("routing_logits", torch.zeros(settings.interests, settings.history), persistent=False)

    def forward(self, events: Float[Tensor, "B L D"], histories: Histories) -> Interests:
        vectors, weights = self._route(events, whole_window(histories.valid))
        return Interests(vectors[:, :, 0], vectors.new_ones(vectors.shape[:2], dtype=torch.bool), weights[:, :, 0])

    def prefixes(self, events: Float[Tensor, "B L D"], histories: Histories) -> Interests:
        vectors, _ = self._route(events, all_prefixes(events.shape[1], events.device))
        flat = vectors.transpose(1, 2).flatten(0, 1)
        return Interests(flat, histories.valid.reshape(-1, 1).expand(flat.shape[:2]))

    def _route(self, events: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        length = events.shape[1]
        votes = torch.bmm(events.transpose(0, 1), self.transforms[:length])  # [L,B,K*D]
        votes = votes.reshape(length, len(events), self.settings.interests, -1).permute(1, 2, 0, 3)
        return route(votes, self.routing_logits[:, :length], visible, self.settings.iterations)
