"""Several interests read from a causal transformer that sees order and time."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from retrieval.models.encoder import AbstractUserEncoder
from retrieval.models.histories import Histories
from retrieval.models.interests import Interests
from retrieval.models.readers import ExemplarReaders, Readers
from retrieval.models.settings import InterestTransformerSettings
from retrieval.models.transformer import CausalBlock, OrderAndTime, initialise, last_states


class InterestTransformer(AbstractUserEncoder):
    """Causal blocks whose attention turns with order and time; the history is divided among K interests.

    Of the project itself. With h_i the state after event i, e_i the vector of its item and a_ik the share of event i in interest k
    (`readers`), which sums to 1 over the events, interest k after event l is

        scale_k * sum_{i <= l} a_ik e_i  +  B h_l

    The states and the exemplars say which interest an event belongs to, what it was about is its own item vector, and the last
    term, shared by all interests, is what comes next whatever the interest. One window's states serve all its prefixes.
    """

    def __init__(self, settings: InterestTransformerSettings) -> None:
        super().__init__()
        self.settings = settings
        self.weighted = settings.weighted and settings.interests > 1
        dimension, width = settings.dimension, settings.dimension * settings.feed_forward_factor
        self.angles = OrderAndTime(dimension // settings.heads // 2, settings.history, timed=settings.timed)
        self.blocks = nn.ModuleList(CausalBlock(dimension, settings.heads, width, settings.dropout) for _ in range(settings.layers))
        initialise(self.blocks, settings.layers)
        self.last_norm = nn.LayerNorm(dimension)
        self.readers = _readers(settings)
        self.scale = nn.Parameter(torch.full((settings.interests, 1), settings.initial_scale))
        self.shared = nn.Linear(dimension, dimension, bias=False)
        self.weights = nn.Linear(dimension, settings.interests) if self.weighted else None
        with torch.no_grad():
            # Both terms start at the size of a few item vectors: neither has to be unlearned first.
            self.shared.weight.copy_(0.5 * torch.eye(dimension))

    def forward(self, events: Float[Tensor, "B L D"], histories: Histories) -> Interests:
        states = self._states(events, histories)
        weights, valid = (each[:, 0] for each in self.readers(states, events, histories.valid[:, None]))
        last = last_states(states, histories)
        vectors = (weights @ events) * self.scale + self.shared(last)[:, None]
        return Interests(vectors, valid, weights, self._log_weights(last))

    def prefixes(self, events: Float[Tensor, "B L D"], histories: Histories) -> Interests:
        batch, length, dimension = events.shape
        states = self._states(events, histories)
        causal = torch.ones(1, length, length, dtype=torch.bool, device=events.device).tril()
        weights, valid = self.readers(states, events, causal)
        pooled = (weights.flatten(1, 2) @ events).view(batch, length, -1, dimension)
        vectors = (pooled * self.scale + self.shared(states)[:, :, None]).flatten(0, 1)
        valid = (valid & histories.valid[:, :, None]).flatten(0, 1)
        return Interests(vectors, valid, weights.flatten(0, 1), self._log_weights(states.flatten(0, 1)))

    def _states(self, events: Float[Tensor, "B L D"], histories: Histories) -> Float[Tensor, "B L D"]:
        states, rotation = events, self.angles(histories.ages)
        for block in self.blocks:
            states = block(states, rotation)
        normalised: Tensor = self.last_norm(states)
        return normalised

    def _log_weights(self, states: Float[Tensor, "R D"]) -> Float[Tensor, "R K"] | None:
        return None if self.weights is None else torch.log_softmax(self.weights(states), dim=-1)


def _readers(settings: InterestTransformerSettings) -> Readers | ExemplarReaders:
    if settings.readers == "exemplars" and settings.interests > 1:
        return ExemplarReaders(settings.dimension, settings.interests, settings.sharpness)
    return Readers(settings.dimension, settings.interests)
