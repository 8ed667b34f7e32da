"""Small blocks that several encoders use."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def feed_forward(dimension: int, layers: int, *, last_relu: bool = False) -> nn.Sequential:
    """`layers` square linear layers with ReLU between them; a single one starts as the identity.

    Starting at the identity keeps the encoder in the item space from the first step, where an untrained random
    matrix would have to be learned away first. Through a ReLU no start does that, so several layers start at random.
    """
    blocks: list[nn.Module] = []
    for number in range(layers):
        linear = nn.Linear(dimension, dimension)
        if layers == 1:
            nn.init.eye_(linear.weight)
            nn.init.zeros_(linear.bias)
        blocks.append(linear)
        if number + 1 < layers or last_relu:
            blocks.append(nn.ReLU())
    return nn.Sequential(*blocks)


def dropout(vectors: Float[Tensor, "..."], probability: float, training: bool) -> Float[Tensor, "..."]:
    """Dropout from one random byte an element: the probability is rounded to a multiple of 1/256, and the scale is exact for it.

    torch draws a number an element, which on a CPU costs more than a layer of the encoder; eight bytes a draw do not.
    """
    threshold = round(probability * 256)
    if not training or threshold == 0:
        return vectors
    words = torch.empty((vectors.numel() + 7) // 8, dtype=torch.int64, device=vectors.device).random_(-(2**63), None)
    kept = words.view(torch.uint8)[: vectors.numel()].view(vectors.shape) >= threshold
    return vectors * kept * (256 / (256 - threshold))


def squash(vectors: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
    """|z|^2 / (1 + |z|^2) * z / |z|, finite and differentiable at zero (Sabour et al., 2017, equation 1)."""
    square = vectors.square().sum(dim=-1, keepdim=True)
    return vectors * (torch.sqrt(square + 1e-9) / (1.0 + square))
