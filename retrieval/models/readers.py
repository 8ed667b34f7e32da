"""How the events of a history are divided among its interests."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from retrieval.models.exemplars import exemplars

_LOWEST = -1e4
"""A logit that leaves nothing to an interest, and is finite, so that its gradient is 0 and not undefined."""


class Division(NamedTuple):
    """How the events of each of P prefixes make up its interests."""

    weights: Float[Tensor, "B P K L"]
    """What share of each interest every event is; 0 where an event is not seen."""
    valid: Bool[Tensor, "B P K"]


class Readers(nn.Module):
    """softmax over the events of w_k . h: K readers with weights that are the same for all users.

    Readers split the catalog among themselves, each user's topics fall to them by chance: of four topics and four readers two
    meet at the same one nine times in ten, and share an interest that stands for neither.
    """

    def __init__(self, dimension: int, interests: int) -> None:
        super().__init__()
        self.readers = nn.Linear(dimension, interests, bias=False)

    def forward(self, states: Float[Tensor, "B L D"], events: Float[Tensor, "B L D"], seen: Bool[Tensor, "#B P L"]) -> Division:
        """The division of each of P prefixes."""
        del events
        weights = shares(self.readers(states).transpose(1, 2)[:, None], seen)
        return Division(weights, weights.new_ones(weights.shape[:3], dtype=torch.bool))


class ExemplarReaders(nn.Module):
    """Events go to the exemplar of their own history that they are most like.

    Of the project itself. K events stand for the history (`exemplars`), from the largest part of it to the smallest. With cosines
    of item vectors, event i goes to exemplar k in the share softmax_k(sharpness cos(e_i, e_k)), and interest k is made of the
    events in proportion to that share times exp(w . h_i): what is about the same thing meets in one interest, whatever it is
    about. As in clustering a user's history after training (PinnerSage, Pal et al., KDD 2020), but inside the model: the item
    vectors learn what belongs together from the very targets. The choice has no gradient, the shares have.
    """

    def __init__(self, dimension: int, interests: int, sharpness: float) -> None:
        super().__init__()
        self.interests = interests
        self.sharpness = nn.Parameter(torch.tensor(sharpness))
        self.importance = nn.Linear(dimension, 1, bias=False)

    def forward(self, states: Float[Tensor, "B L D"], events: Float[Tensor, "B L D"], seen: Bool[Tensor, "#B P L"]) -> Division:
        """The division of each of P prefixes; a history of fewer items than K has fewer interests, and one in any case."""
        unit = functional.normalize(events, dim=-1)
        alike = unit @ unit.transpose(1, 2)
        chosen = exemplars(alike.detach(), seen, self.interests)
        valid = _distinct(chosen)
        near = alike.gather(1, chosen.flatten(1)[..., None].expand(-1, -1, alike.shape[2])).view(*chosen.shape, -1)
        mine = torch.log_softmax((self.sharpness * near).masked_fill(~valid[..., None], _LOWEST), dim=2)
        return Division(shares(mine + self.importance(states).transpose(1, 2)[:, None], seen), valid)


def _distinct(chosen: Int[Tensor, "B P K"]) -> Bool[Tensor, "B P K"]:
    """Which exemplars are no repetition of one before."""
    same = chosen[..., :, None] == chosen[..., None, :]
    return ~same.tril(diagonal=-1).any(dim=-1)


def shares(logits: Float[Tensor, "B #P K L"], seen: Bool[Tensor, "#B P L"]) -> Float[Tensor, "B P K L"]:
    """The softmax over the events that are seen; 0 where there are none."""
    return torch.softmax(logits.masked_fill(~seen[:, :, None], -torch.inf), dim=-1).nan_to_num(0.0)
