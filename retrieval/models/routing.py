"""Dynamic routing (Sabour et al., 2017) as MIND and ComiRec-DR use it: softmax over the interests."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from retrieval.models.layers import squash


def route(
    votes: Float[Tensor, "B K1 L D"],
    logits: Float[Tensor, "K L"],
    visible: Bool[Tensor, "B1 1 Q L"],
    iterations: int,
) -> tuple[Float[Tensor, "B K Q D"], Float[Tensor, "B K Q L"]]:
    """Route the transformed events of a window into K interests, for Q subsets of the window at once.

    Each of `iterations` rounds computes w = softmax over the *interests* of the logits, z = sum_i w_i vote_i and
    u = squash(z); between rounds the logits *accumulate* u . vote. The mask is applied after the softmax, so an
    invisible event takes nothing from the visible ones. Only the last round has a gradient (as in the authors'
    code): the earlier ones only decide the weights.

    Args:
        votes: transformed events; K1 is 1 where all interests share the transform (MIND).
        logits: initial routing logits.
        visible: which events each of the Q queries may see; Q=1 for whole windows, Q=L for all prefixes.
        iterations: rounds, at least 1.

    Returns:
        interests, and the final weights (zero where invisible).
    """
    fixed = votes.detach()
    current = logits[None, :, None, :].expand(len(votes), -1, visible.shape[2], -1)
    with torch.no_grad():
        for _ in range(iterations - 1):
            interests = squash(_weights(current, visible) @ fixed)
            current = current + interests @ fixed.transpose(-1, -2)
        weights = _weights(current, visible)
    return squash(weights @ votes), weights


def _weights(logits: Float[Tensor, "B K Q L"], visible: Bool[Tensor, "B1 1 Q L"]) -> Float[Tensor, "B K Q L"]:
    return torch.softmax(logits, dim=1) * visible


def whole_window(valid: Bool[Tensor, "B L"]) -> Bool[Tensor, "B 1 1 L"]:
    """The one query that sees every valid event."""
    return valid[:, None, None, :]


def all_prefixes(length: int, device: torch.device) -> Bool[Tensor, "1 1 L L"]:
    """L queries, of which query l sees events 0..l."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()[None, None]
