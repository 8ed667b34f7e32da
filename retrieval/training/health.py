"""Do the interests of a model differ, and does each of them do something? Watched at every validation."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from retrieval.models.interests import Interests

_DEAD = 0.01
"""An interest that wins a smaller share of the recommended items than this is dead."""


@dataclass(frozen=True)
class HealthPart:
    """What a batch of users shows; users with one valid interest say nothing about pairs."""

    cosine: Float[Tensor, " B"]
    pairs: Float[Tensor, " B"]
    rank: Float[Tensor, " B"]
    contributing: Float[Tensor, " B"]
    wins: Int[Tensor, " K"]


def observe(interests: Interests, items: Float[Tensor, "N S"], top: Int[Tensor, "B n"]) -> HealthPart:
    """The health of the interests of B users whose best items are `top`."""
    winners = _winners(interests, items[top])
    each = torch.nn.functional.one_hot(winners, interests.vectors.shape[1])
    cosine, pairs = pairwise_cosine(interests)
    return HealthPart(cosine, pairs, effective_rank(interests), (each.sum(dim=1) > 0).sum(dim=1).float(), each.sum(dim=(0, 1)))


def summarise_health(parts: list[HealthPart]) -> dict[str, float]:
    """Means over users; the share of the list items that the busiest interest wins; interests that win next to nothing."""
    pairs = torch.cat([part.pairs for part in parts])
    cosine = torch.cat([part.cosine for part in parts])
    wins = torch.stack([part.wins for part in parts]).sum(dim=0)
    share = wins / wins.sum().clamp(min=1)
    return {
        "interest_cosine": float((cosine * pairs).sum() / pairs.sum().clamp(min=1)),
        "effective_rank": float(torch.cat([part.rank for part in parts]).mean()),
        "contributing_interests": float(torch.cat([part.contributing for part in parts]).mean()),
        "largest_share": float(share.max()),
        "dead_interests": float((share < _DEAD).sum()),
    }


def pairwise_cosine(interests: Interests) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Mean cosine over the pairs of a user's valid interests, and how many pairs (0: the mean is 0)."""
    unit = torch.nn.functional.normalize(interests.vectors, dim=-1) * interests.valid[:, :, None]
    count = interests.valid.sum(dim=1).float()
    pairs = count * (count - 1)
    return (unit.sum(dim=1).square().sum(dim=-1) - count) / pairs.clamp(min=1), pairs


def effective_rank(interests: Interests) -> Float[Tensor, " B"]:
    """exp(entropy of the normalised eigenvalues) of the Gram matrix of the unit interests: how many directions they use."""
    unit = torch.nn.functional.normalize(interests.vectors, dim=-1) * interests.valid[:, :, None]
    values = torch.linalg.eigvalsh((unit @ unit.transpose(1, 2)).double()).clamp(min=0)
    share = values / values.sum(dim=1, keepdim=True).clamp(min=1e-12)
    return torch.exp(-torch.special.xlogy(share, share).sum(dim=1)).float()


def _winners(interests: Interests, listed: Float[Tensor, "B n S"]) -> Int[Tensor, "B n"]:
    """The interest that scores each listed item best."""
    scores = listed @ interests.vectors.transpose(1, 2)
    return scores.masked_fill(~interests.valid[:, None, :], -torch.inf).argmax(dim=2)
