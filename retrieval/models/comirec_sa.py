"""ComiRec-SA: K attention heads over the history (Cen et al., KDD 2020, section 3.2.2)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from retrieval.models.encoder import AbstractUserEncoder
from retrieval.models.histories import Histories
from retrieval.models.interests import Interests
from retrieval.models.settings import ComiRecSASettings


class ComiRecSA(AbstractUserEncoder):
    """A = softmax over L of tanh((H+P) W1 + b1) W2 + b2; V = A^T H.

    Positions enter the attention only, values are the raw item vectors. Differs from the paper: biases are kept as in
    the authors' code; positions are left-aligned, so that all prefixes of a window share their attention logits.
    """

    def __init__(self, settings: ComiRecSASettings) -> None:
        super().__init__()
        width = settings.dimension * settings.hidden_factor
        self.hidden = nn.Linear(settings.dimension, width)
        self.heads = nn.Linear(width, settings.interests)
        self.positions = nn.Parameter(torch.randn(settings.history, settings.dimension) * 0.02) if settings.positions else None

    def forward(self, events: Float[Tensor, "B L D"], histories: Histories) -> Interests:
        logits = self._logits(events).masked_fill(~histories.valid[:, :, None], -torch.inf)
        weights = torch.softmax(logits, dim=1).nan_to_num(0.0).transpose(1, 2)
        vectors = weights @ events
        return Interests(vectors, vectors.new_ones(vectors.shape[:2], dtype=torch.bool), weights)

    def prefixes(self, events: Float[Tensor, "B L D"], histories: Histories) -> Interests:
        batch, length, dimension = events.shape
        later = torch.full((length, length), -torch.inf, device=events.device).triu(diagonal=1)[:, None, :]
        logits = self._logits(events).transpose(1, 2)[:, None]  # [B,1,K,L]: one window's logits serve all its prefixes
        weights = torch.softmax(logits + later, dim=-1)  # [B,L,K,L]
        vectors = (weights.flatten(1, 2) @ events).view(batch * length, -1, dimension)
        valid = histories.valid.reshape(-1, 1).expand(vectors.shape[:2])
        return Interests(vectors, valid, weights.flatten(0, 1))

    def _logits(self, events: Float[Tensor, "B L D"]) -> Float[Tensor, "B L K"]:
        seen = events if self.positions is None else events + self.positions[: events.shape[1]]
        logits: Tensor = self.heads(torch.tanh(self.hidden(seen)))
        return logits
