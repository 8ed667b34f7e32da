"""MIND: behaviour-to-interest dynamic routing (Li et al., CIKM 2019)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from retrieval.models.encoder import AbstractUserEncoder
from retrieval.models.histories import Histories
from retrieval.models.interests import Interests
from retrieval.models.layers import feed_forward
from retrieval.models.routing import all_prefixes, route, whole_window
from retrieval.models.settings import MindSettings


class Mind(AbstractUserEncoder):
    """One bilinear map S shared by all interests, routed from fixed random logits, then H layers.

    The routing logits are drawn once, stored with the weights and never trained or redrawn: with a shared S equal
    logits would keep all capsules identical for ever, and fresh noise would give one user other vectors every night.
    Differs from the paper: what is known of a profile is added to the interests (`UserFields`); the last layer is linear by default;
    label-aware attention belongs to the loss (`readout = "label-aware"`).
    """

    routing_logits: Tensor

    def __init__(self, settings: MindSettings) -> None:
        super().__init__()
        self.settings = settings
        self.transform = nn.Linear(settings.dimension, settings.dimension, bias=False)
        self.layers = feed_forward(settings.dimension, settings.layers, last_relu=settings.last_activation == "relu")
        self.register_buffer("routing_logits", torch.randn(settings.interests, settings.history))

    def forward(self, events: Float[Tensor, "B L D"], histories: Histories) -> Interests:
        vectors, weights = self._route(events, whole_window(histories.valid))
        return Interests(self.layers(vectors[:, :, 0]), self._valid(histories.lengths), weights[:, :, 0])

    def prefixes(self, events: Float[Tensor, "B L D"], histories: Histories) -> Interests:
        length = events.shape[1]
        vectors, _ = self._route(events, all_prefixes(length, events.device))
        seen = torch.arange(1, length + 1, device=events.device).repeat(len(events))
        valid = self._valid(seen) & histories.valid.reshape(-1, 1)
        return Interests(self.layers(vectors.transpose(1, 2).flatten(0, 1)), valid)

    def _route(self, events: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.routing_logits[:, : events.shape[1]]
        return route(self.transform(events)[:, None], logits, visible, self.settings.iterations)

    def _valid(self, events_seen: Int[Tensor, " B"]) -> Bool[Tensor, "B K"]:
        interests = torch.arange(self.settings.interests, device=events_seen.device)
        if not self.settings.adaptive:
            return torch.ones(len(events_seen), len(interests), dtype=torch.bool, device=events_seen.device)
        return interests < adaptive_interests(events_seen, self.settings.interests)[:, None]


def adaptive_interests(events_seen: Int[Tensor, " B"], most: int) -> Int[Tensor, " B"]:
    """K' = max(1, min(K, floor(log2 n))) (MIND, equation 9), in exact integer arithmetic."""
    # 2^63 is no int64; it and what lies above it would pass for small.
    powers = 2 ** torch.arange(1, min(most, 62) + 1, device=events_seen.device)
    return (events_seen[:, None] >= powers).sum(dim=1).clamp(min=1)
