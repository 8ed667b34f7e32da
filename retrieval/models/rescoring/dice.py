"""Dice, the activation that moves with its data."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

_EPSILON = 1e-8


class Dice(nn.Module):
    """f(s) = p s + (1 - p) a s with p = sigmoid((s - E[s]) / sqrt(Var[s] + 1e-8)) (Zhou et al., KDD 2018, section 5.3, equation 3).

    `a` is learned, one a column, from 0 on. In training mean and (biased) variance are those of the batch, a gradient goes through
    them, and running ones follow by a tenth a step; they take their place outside of training. Differs from the paper: only rows
    that are present count, so that no padding moves the others.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, width: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.alpha, self.momentum = nn.Parameter(torch.zeros(width)), momentum
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))

    def forward(self, values: Float[Tensor, "*S H"], present: Bool[Tensor, "*S"]) -> Float[Tensor, "*S H"]:
        mean, variance = self._moments(values, present)
        share = torch.sigmoid((values - mean) * torch.rsqrt(variance + _EPSILON))
        return values * (share + (1.0 - share) * self.alpha)

    def _moments(self, values: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        if not self.training:
            return self.mean, self.variance
        rows = present.flatten().to(values.dtype)
        weights, flat = rows / rows.sum().clamp(min=1.0), values.flatten(0, -2)
        mean = weights @ flat
        variance = weights @ (flat - mean).square()
        with torch.no_grad():
            self.mean.lerp_(mean, self.momentum)
            self.variance.lerp_(variance, self.momentum)
        return mean, variance
