"""Several interests read from a causal transformer that sees order and time."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from retrieval.models.encoder import AbstractUserEncoder
from retrieval.models.histories import Histories
from retrieval.models.interests import Interests
from retrieval.models.settings import InterestTransformerSettings
from retrieval.models.transformer import CausalBlock, OrderAndTime, initialise, last_states, resemblance


class InterestTransformer(AbstractUserEncoder):
    """Causal blocks whose attention turns with order and time, then K residual readers of the last state.

    Of the project itself. Interest k is the state h plus a small network of its own, h + V_k gelu(U_k h), and comes
    with a log weight (log-softmax over the interests): all interests start near the one vector that a single-interest
    model would have and part where the data asks for it; a user with one intent is served by one of them.
    """

    def __init__(self, settings: InterestTransformerSettings) -> None:
        super().__init__()
        self.settings = settings
        self.weighted = settings.weighted and settings.interests > 1
        dimension, width = settings.dimension, settings.dimension * settings.feed_forward_factor
        self.angles = OrderAndTime(dimension // settings.heads // 2, settings.history, timed=settings.timed)
        self.blocks = nn.ModuleList(CausalBlock(dimension, settings.heads, width, settings.dropout) for _ in range(settings.layers))
        self.last_norm = nn.LayerNorm(dimension)
        self.readers = _Readers(settings)
        initialise(self.blocks, settings.layers)

    def forward(self, events: Float[Tensor, "B L D"], histories: Histories) -> Interests:
        read = self._read(last_states(self._states(events, histories), histories))
        return read if self.training else replace(read, routing=resemblance(read.vectors, events, histories))

    def prefixes(self, events: Float[Tensor, "B L D"], histories: Histories) -> Interests:
        read = self._read(self._states(events, histories).flatten(0, 1))
        return Interests(read.vectors, read.valid & histories.valid.reshape(-1, 1), log_weights=read.log_weights)

    def _states(self, events: Float[Tensor, "B L D"], histories: Histories) -> Float[Tensor, "B L D"]:
        states = events
        rotation = self.angles(histories.ages)
        for block in self.blocks:
            states = block(states, rotation)
        normalised: Tensor = self.last_norm(states)
        return normalised

    def _read(self, states: Float[Tensor, "R D"]) -> Interests:
        vectors, log_weights = self.readers(states)
        return Interests(vectors, vectors.new_ones(vectors.shape[:2], dtype=torch.bool), log_weights=log_weights)


class _Readers(nn.Module):
    """Interest k is the state plus what reader k adds to it, and a weight of its own."""

    def __init__(self, settings: InterestTransformerSettings) -> None:
        super().__init__()
        self.interests = settings.interests
        dimension = settings.dimension
        self.inner = nn.Linear(dimension, settings.interests * dimension) if settings.interests > 1 else None
        self.outer = nn.Parameter(torch.randn(settings.interests, dimension, dimension) * dimension**-0.5)
        self.weights = nn.Linear(dimension, settings.interests) if settings.weighted and settings.interests > 1 else None

    def forward(self, states: Float[Tensor, "R D"]) -> tuple[Float[Tensor, "R K D"], Float[Tensor, "R K"] | None]:
        if self.inner is None:
            return states[:, None], None
        hidden = functional.gelu(self.inner(states), approximate="tanh").view(len(states), self.interests, -1)
        vectors = states[:, None] + torch.einsum("rkd,kde->rke", hidden, self.outer)
        return vectors, None if self.weights is None else torch.log_softmax(self.weights(states), dim=-1)
