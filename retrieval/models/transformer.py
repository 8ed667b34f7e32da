"""A causal transformer over histories: the backbone of the encoders that see order and time."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from retrieval.models.histories import Histories
from retrieval.models.layers import dropout

_SHORTEST, _LONGEST = 3600.0, 2.0 * 365 * 86_400
"""Periods of the rotations by time, in seconds: from an hour to two years."""

Rotation = tuple[Float[Tensor, "B 1 L C"], Float[Tensor, "B 1 L C"]]
"""Cosine and signed sine of the angles of every position, for both halves of a vector: (cos, cos) and (-sin, sin)."""


def last_states(states: Float[Tensor, "B L D"], histories: Histories) -> Float[Tensor, "B D"]:
    """The state after the last valid event of each window."""
    last = (histories.lengths - 1).clamp(min=0)
    return states[torch.arange(len(states), device=states.device), last]


@torch.no_grad()
def resemblance(vectors: Float[Tensor, "B K D"], events: Float[Tensor, "B L D"], histories: Histories) -> Float[Tensor, "B K L"]:
    """Which events an interest stands for: the softmax over the history of the scores that the interest gives its items.

    Attention weights of a deep backbone do not say what a state is about; the scores of the user's own items do.
    """
    scores = (vectors @ events.transpose(1, 2)).masked_fill(~histories.valid[:, None, :], -torch.inf)
    return torch.softmax(scores, dim=-1).nan_to_num(0.0)


class CausalBlock(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)) (pre-norm); every position sees itself and what lies before.

    Histories are left-aligned, so a valid position never sees an invalid one and the causal mask is the only mask.
    """

    def __init__(self, dimension: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.attention_norm, self.forward_norm = nn.LayerNorm(dimension), nn.LayerNorm(dimension)
        self.inputs, self.outputs = nn.Linear(dimension, 3 * dimension, bias=False), nn.Linear(dimension, dimension, bias=False)
        self.widen, self.narrow = nn.Linear(dimension, feed_forward), nn.Linear(feed_forward, dimension)

    def forward(self, states: Float[Tensor, "B L D"], rotation: Rotation | None) -> Float[Tensor, "B L D"]:
        states = states + self._drop(self._attend(self.attention_norm(states), rotation))
        hidden = functional.gelu(self.widen(self.forward_norm(states)), approximate="tanh")
        return states + self._drop(self.narrow(hidden))

    def _attend(self, states: Float[Tensor, "B L D"], rotation: Rotation | None) -> Float[Tensor, "B L D"]:
        query, key, value = self.inputs(states).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        mixed: Tensor = self.outputs(seen.transpose(1, 2).flatten(2))
        return mixed

    def _drop(self, vectors: Tensor) -> Tensor:
        return dropout(vectors, self.dropout, self.training)


def initialise(backbone: nn.Module, layers: int) -> None:
    """Small normal weights, smaller still where a block adds to the stream (GPT-2's rule)."""
    for name, parameter in backbone.named_parameters():
        if parameter.dim() > 1:
            last = name.endswith(("outputs.weight", "narrow.weight"))
            nn.init.normal_(parameter, std=0.02 if not last else 0.02 / math.sqrt(2 * layers))
            if not last:
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


def rotate(vectors: Float[Tensor, "B H L C"], rotation: Rotation) -> Float[Tensor, "B H L C"]:
    """Turn the pairs (c, c + C/2) by the position's angles: inner products then depend on differences only (RoPE, Su et al., 2021)."""
    cosine, sine = rotation
    # Whole vectors and in place: a pass over each half and their joining take nearly three times as long.
    turned = vectors.roll(vectors.shape[-1] // 2, dims=-1).mul_(sine)
    return turned.add_(vectors * cosine)


class OrderAndTime(nn.Module):
    """Angles for `rotate`: half of the pairs turn with the position, half with the time of the event.

    Only differences matter to an attention of rotated queries and keys, so it makes no difference from when times
    are counted: an event looks the same from every prefix that holds it.

    Args:
        pairs: C/2.
        history: L; the slowest rotation by position takes about four windows.
        timed: False turns all pairs by position.
    """

    order: Tensor
    time: Tensor

    def __init__(self, pairs: int, history: int, *, timed: bool) -> None:
        super().__init__()
        by_time = pairs // 2 if timed else 0
        self.register_buffer("order", _frequencies(4.0, 4.0 * history, pairs - by_time), persistent=False)
        self.register_buffer("time", _frequencies(_SHORTEST, _LONGEST, by_time), persistent=False)

    def forward(self, ages: Float[Tensor, "B L"]) -> Rotation:
        positions = torch.arange(ages.shape[1], dtype=ages.dtype, device=ages.device).expand_as(ages)
        turns = torch.cat([positions[..., None] * self.order, ages[..., None] * -self.time], dim=-1)[:, None]
        # Whole turns are dropped in float64: a year has thousands of the fastest.
        angles = turns.remainder(1.0).to(torch.float32) * (2 * math.pi)
        cosine, sine = angles.cos(), angles.sin()
        return torch.cat([cosine, cosine], dim=-1), torch.cat([-sine, sine], dim=-1)


def _frequencies(shortest: float, longest: float, count: int) -> Float[Tensor, " R"]:
    periods = torch.logspace(math.log10(shortest), math.log10(longest), count) if count else torch.empty(0)
    return 1.0 / periods.double()
