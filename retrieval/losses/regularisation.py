"""Penalties that keep a user's interests apart, and their routing from falling onto single events."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def orthogonality(vectors: Float[Tensor, "P K D"], valid: Bool[Tensor, "P K"], weights: Float[Tensor, " P"]) -> Float[Tensor, ""]:
    """The squared cosine of two valid interests, mean over the pairs of an example; 0 where an example has one interest."""
    unit = torch.nn.functional.normalize(vectors, dim=-1) * valid[:, :, None]
    count = valid.sum(dim=1)
    # The diagonal of the squared Gram matrix is one for each valid interest.
    square = (unit @ unit.transpose(1, 2)).square().sum(dim=(1, 2)) - count
    return (square / (count * (count - 1)).clamp(min=1) * weights).sum()


def routing_variance(routing: Float[Tensor, "P K L"], valid: Bool[Tensor, "P L"], weights: Float[Tensor, " P"]) -> Float[Tensor, ""]:
    """|diag(Cov)|^2 of the routing weights over the valid positions, mean over the examples (REMI, RecSys 2023).

    The diagonal holds, for each interest, the variance of its weights over the history: large where an interest is
    routed to single events. Differs from the authors' code, whose mean and sum run over padding, too.
    """
    count = valid.sum(dim=1).clamp(min=1)[:, None]
    mean = (routing * valid[:, None, :]).sum(dim=2) / count
    spread = ((routing - mean[:, :, None]) * valid[:, None, :]).square().sum(dim=2) / count
    return (spread.square().sum(dim=1) * weights).sum()
