"""Do the interests of a model differ, and does each of them do something? Watched at every validation."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from retrieval.models.interests import Interests
from retrieval.training.distributed import World

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


def observe(interests: Interests, winners: Int[Tensor, "B n"]) -> HealthPart:
    """The health of the interests of B users, of which `winners` score their best items best."""
    each = torch.nn.functional.one_hot(winners, interests.vectors.shape[1])
    cosine, pairs = pairwise_cosine(interests)
    return HealthPart(cosine, pairs, effective_rank(interests), (each.sum(dim=1) > 0).sum(dim=1).float(), each.sum(dim=(0, 1)))


def joined_parts(parts: list[HealthPart], world: World, total: int) -> HealthPart:
    """The parts of all processes as one, of `total` users."""
    names = [field.name for field in fields(HealthPart) if field.name != "wins"]
    users = {name: world.joined(torch.cat([getattr(part, name) for part in parts]), total) for name in names}
    return HealthPart(**users, wins=world.add(torch.stack([part.wins for part in parts]).sum(dim=0)))


def summarise_health(every: HealthPart) -> dict[str, float]:
    """Means over users; the share of the list items that the busiest interest wins; interests that win next to nothing."""
    share = every.wins / every.wins.sum().clamp(min=1)
    return {
        "interest_cosine": float((every.cosine * every.pairs).sum() / every.pairs.sum().clamp(min=1)),
        "effective_rank": float(every.rank.mean()),
        "contributing_interests": float(every.contributing.mean()),
        "largest_share": float(share.max()),
        "dead_interests": float((share < _DEAD).sum()),
    }


def winning(interests: Interests, listed: Float[Tensor, "B n S"]) -> Int[Tensor, "B n"]:
    """The interest that scores each listed item best."""
    scores = listed @ interests.vectors.transpose(1, 2)
    return scores.masked_fill(~interests.valid[:, None, :], -torch.inf).argmax(dim=2)


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
