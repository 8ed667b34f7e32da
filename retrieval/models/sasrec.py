"""SASRec: a causal transformer whose last state is the user (Kang & McAuley, ICDM 2018)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from retrieval.models.encoder import AbstractUserEncoder
from retrieval.models.histories import Histories
from retrieval.models.interests import Interests
from retrieval.models.settings import SASRecSettings
from retrieval.models.transformer import CausalBlock, initialise, last_states, resemblance


class SASRec(AbstractUserEncoder):
    """Item vectors times sqrt(D) plus learned positions, causal blocks, a last norm. One interest.

    Differs from the paper: windows are left-aligned, so a learned position is "the i-th event of the window" and not
    "the i-th from its end"; keys and values are normalised like the queries (pre-norm); GELU for ReLU; no dropout of
    the attention weights. The binary cross-entropy of the paper is a matter of the loss: its softmax form is stronger.
    """

    def __init__(self, settings: SASRecSettings) -> None:
        super().__init__()
        self.settings = settings
        dimension = settings.dimension
        self.positions = nn.Parameter(torch.randn(settings.history, dimension) * 0.02)
        width = dimension * settings.feed_forward_factor
        self.blocks = nn.ModuleList(CausalBlock(dimension, settings.heads, width, settings.dropout) for _ in range(settings.layers))
        self.last_norm = nn.LayerNorm(dimension)
        initialise(self.blocks, settings.layers)

    def forward(self, events: Float[Tensor, "B L D"], histories: Histories) -> Interests:
        vectors, valid = _single(last_states(self._states(events), histories))
        return Interests(vectors, valid, None if self.training else resemblance(vectors, events, histories))

    def prefixes(self, events: Float[Tensor, "B L D"], histories: Histories) -> Interests:
        vectors, valid = _single(self._states(events).flatten(0, 1))
        return Interests(vectors, valid & histories.valid.reshape(-1, 1))

    def _states(self, events: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        states = events * self.settings.dimension**0.5 + self.positions[: events.shape[1]]
        for block in self.blocks:
            states = block(states, None)
        normalised: Tensor = self.last_norm(states)
        return normalised


def _single(vectors: Float[Tensor, "R D"]) -> tuple[Tensor, Tensor]:
    return vectors[:, None], torch.ones(len(vectors), 1, dtype=torch.bool, device=vectors.device)
