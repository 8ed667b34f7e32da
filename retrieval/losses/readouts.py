"""Readouts: which of a user's interests an item is scored with, in training.

A readout turns the interests of P training examples into the queries that items are scored with; the score of an
item is always the max over the valid queries of the inner product, which for `max` is the score that is served.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from retrieval.core.tables import Table


class Queries(NamedTuple):
    """K vectors an example and which of them count; at least one does."""

    vectors: Float[Tensor, "P K D"]
    valid: Bool[Tensor, "P K"]


def all_head_max(queries: Queries, positives: Float[Tensor, "P D"], power: float) -> Queries:
    """Every item, positive or negative, is scored by its own best interest."""
    del positives, power
    return queries


def hard(queries: Queries, positives: Float[Tensor, "P D"], power: float) -> Queries:
    """The interest that scores the positive best scores everything (ComiRec, equation 9)."""
    del power
    best = scores_of(queries, positives).argmax(dim=1)
    return _single(queries.vectors[torch.arange(len(best), device=best.device), best])


def label_aware(queries: Queries, positives: Float[Tensor, "P D"], power: float) -> Queries:
    """softmax(p * V^T e) over the valid interests (MIND, equation 8).

    The paper raises the inner products to the power p; they can be negative, so they are scaled by p instead, which
    has the same limits: p = 0 is the mean, p -> infinity the hard readout.
    """
    weights = torch.softmax(power * scores_of(queries, positives), dim=1).masked_fill(~queries.valid, 0.0)
    weights = weights / weights.sum(dim=1, keepdim=True)
    return _single((weights[:, None, :] @ queries.vectors)[:, 0])


def scores_of(queries: Queries, items: Float[Tensor, "P D"]) -> Float[Tensor, "P K"]:
    """The inner product of every query with the example's own item; the lowest finite number where invalid."""
    scores = torch.einsum("pkd,pd->pk", queries.vectors, items)
    return scores.masked_fill(~queries.valid, torch.finfo(scores.dtype).min)


def _single(vectors: Float[Tensor, "P D"]) -> Queries:
    return Queries(vectors[:, None], torch.ones(len(vectors), 1, dtype=torch.bool, device=vectors.device))


READOUTS = Table("readout", {"max": all_head_max, "hard": hard, "label-aware": label_aware})
