"""Readouts: which of a user's interests an item is scored with, in training.

A readout turns the interests of P training examples into the queries that items are scored with; the score of an
item is the max over the valid queries of the inner product (for `max` the score that is served) or its smooth form.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from retrieval.core.tables import Table

Pooling = Literal["max", "log-sum-exp"]


class Queries(NamedTuple):
    """K vectors an example, which of them count (at least one does), and how their scores of an item become one."""

    vectors: Float[Tensor, "P K D"]
    valid: Bool[Tensor, "P K"]
    pooling: Pooling = "max"


def all_head_max(queries: Queries, positives: Float[Tensor, "P D"], power: float) -> Queries:
    """Every item, positive or negative, is scored by its own best interest."""
    del positives, power
    return queries


def all_head_sum(queries: Queries, positives: Float[Tensor, "P D"], power: float) -> Queries:
    """Every item is scored by log(sum over interests of exp(score)), the smooth form of the max.

    A softmax over these scores is a mixture of the interests' softmaxes with weights proportional to each one's
    normaliser (Yang et al., ICLR 2018, without separate mixture weights). All interests get a gradient from every
    item in proportion to their share of it, so none starves; what is served is the max.
    """
    del positives, power
    return queries._replace(pooling="log-sum-exp")


def hard(queries: Queries, positives: Float[Tensor, "P D"], power: float) -> Queries:
    """The interest that scores the positive best scores everything (ComiRec, equation 9)."""
    del power
    best = scores_of(queries, positives).argmax(dim=1)
    return _single(queries.vectors[torch.arange(len(best), device=best.device), best])


def sampled(queries: Queries, positives: Float[Tensor, "P D"], power: float) -> Queries:
    """One interest drawn with probability softmax(p * V^T e) over the valid interests scores everything.

    Between the hard readout (p -> infinity) and chance (p = 0): interests that hardly ever win the positive still
    learn now and then, so they do not die. Draws from the global generator, which training seeds by step.
    """
    scores = (power * scores_of(queries, positives)).masked_fill(~queries.valid, -torch.inf)
    drawn = torch.multinomial(torch.softmax(scores.detach(), dim=1), 1)[:, 0]
    return _single(queries.vectors[torch.arange(len(drawn), device=drawn.device), drawn])


def label_aware(queries: Queries, positives: Float[Tensor, "P D"], power: float) -> Queries:
    """softmax(p * V^T e) over the valid interests (MIND, equation 8).

    The paper raises the inner products to the power p; they can be negative, so they are scaled by p instead, which
    has the same limits: p = 0 is the mean, p -> infinity the hard readout.
    """
    weights = torch.softmax(power * scores_of(queries, positives), dim=1).masked_fill(~queries.valid, 0.0)
    weights = weights / weights.sum(dim=1, keepdim=True)
    return _single((weights[:, None, :] @ queries.vectors)[:, 0])


def pooled_scores(queries: Queries, items: Float[Tensor, "P D"]) -> Float[Tensor, " P"]:
    """The score of each example's own item, as the queries' pooling makes it."""
    scores = scores_of(queries, items)
    return scores.amax(dim=1) if queries.pooling == "max" else scores.logsumexp(dim=1)


def scores_of(queries: Queries, items: Float[Tensor, "P D"]) -> Float[Tensor, "P K"]:
    """The inner product of every query with the example's own item; the lowest finite number where invalid."""
    scores = torch.einsum("pkd,pd->pk", queries.vectors, items)
    return scores.masked_fill(~queries.valid, torch.finfo(scores.dtype).min)


def _single(vectors: Float[Tensor, "P D"]) -> Queries:
    return Queries(vectors[:, None], torch.ones(len(vectors), 1, dtype=torch.bool, device=vectors.device))


READOUTS = Table(
    "readout", {"max": all_head_max, "log-sum-exp": all_head_sum, "hard": hard, "sampled": sampled, "label-aware": label_aware}
)
