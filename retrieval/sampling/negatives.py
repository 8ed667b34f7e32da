"""Negative samplers. The probability travels with the rows, so the correction cannot be forgotten."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from retrieval.core.tables import Table


class Negatives(NamedTuple):
    """Rows drawn with replacement, and the log probability of one draw giving each of them."""

    rows: Int[Tensor, " M"]
    log_q: Float[Tensor, " M"]
    counts: Float[Tensor, " M"] | None = None
    """How many draws gave each row; None: one."""
    positive_log_q: Float[Tensor, " P"] | None = None
    """The log probability of one draw giving an example's own positive."""


class NegativeSampler:
    """Draws item rows from a fixed distribution.

    Args:
        probabilities: float64 [N], summing to one. An item of probability zero is never drawn.
    """

    def __init__(self, probabilities: Float[Tensor, " N"]) -> None:
        self._cumulative = probabilities.cumsum(dim=0)
        self._log_q = probabilities.log().to(torch.float32)
        self._last = int(probabilities.nonzero().max())

    def draw(self, count: int, generator: torch.Generator) -> Negatives:
        """`count` rows; the generator lives on the CPU, so the same seed gives the same rows on every device."""
        uniform = torch.rand(count, generator=generator, dtype=torch.float64).to(self._cumulative.device)
        rows = torch.searchsorted(self._cumulative, uniform * self._cumulative[-1], right=True).clamp(max=self._last)
        return Negatives(rows, self._log_q[rows])

    def log_q(self, rows: Int[Tensor, " P"]) -> Float[Tensor, " P"]:
        """The log probability of each row under one draw."""
        return self._log_q[rows]


def uniform(counts: Int[Tensor, " N"], alpha: float) -> Float[Tensor, " N"]:
    """1/N for every item, seen in training or not; `alpha` has no say here."""
    del alpha
    return torch.full((len(counts),), 1.0 / len(counts), dtype=torch.float64, device=counts.device)


def log_uniform(counts: Int[Tensor, " N"], alpha: float) -> Float[Tensor, " N"]:
    """log((r+2)/(r+1)) / log(N+1) for the item of popularity rank r = 0, 1, ... (Zipf-like; ties by row)."""
    del alpha
    ranks = torch.empty_like(counts)
    ranks[torch.argsort(counts, descending=True, stable=True)] = torch.arange(len(counts), device=counts.device)
    return torch.log1p(1.0 / (ranks.double() + 1.0)) / torch.log(torch.tensor(len(counts) + 1.0, dtype=torch.float64))


def popularity(counts: Int[Tensor, " N"], alpha: float) -> Float[Tensor, " N"]:
    """count^alpha, normalised; an item without events is never a negative."""
    weights = torch.where(counts > 0, counts.double() ** alpha, 0.0)
    return weights / weights.sum()


SAMPLERS = Table("sampler", {"uniform": uniform, "log-uniform": log_uniform, "popularity": popularity})
