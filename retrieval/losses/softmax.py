"""Softmax over the whole catalog, and over sampled classes in two corrections."""

import abc

import torch
from jaxtyping import Float
from torch import Tensor

from retrieval.losses.abstract import AbstractLoss, Competitors, Examples
from retrieval.losses.blocked import blocked_loss
from retrieval.losses.cross_entropy import Blocks, Classes, cross_entropy
from retrieval.losses.exclusions import CatalogExclusions
from retrieval.losses.hard_negatives import HardSoftmax
from retrieval.losses.readouts import READOUTS, pooled_scores
from retrieval.losses.sampled import exclusions
from retrieval.losses.settings import LossSettings


class FullSoftmax(AbstractLoss):
    """-log softmax of the positive over the whole catalog, or over what of it is not to be left out, in blocks."""

    def __init__(self, settings: LossSettings) -> None:
        self.settings = settings

    def __call__(self, examples: Examples, competitors: Competitors, compute: torch.dtype) -> Float[Tensor, ""]:
        queries = READOUTS[self.settings.readout](examples.queries, examples.positives, self.settings.power)
        own = pooled_scores(queries, examples.positives)
        classes = Classes(competitors.vectors, None, None, contain_positives=True)
        if competitors.known is not None:
            # An example may know its positive already, where items come again: it competes as a class of its own.
            excluded = CatalogExclusions(examples.positive_rows, competitors.known)
            classes = Classes(competitors.vectors, None, excluded, contain_positives=False)
        return cross_entropy(queries, own, classes, examples.weights, Blocks(self.settings.block_elements, compute))


class AbstractSampledSoftmax(AbstractLoss):
    """-log e^s+' / (e^s+' + sum_j e^(s_j - log Q_j)) over shared negatives; accidental hits are no competitors."""

    def __init__(self, settings: LossSettings) -> None:
        self.settings = settings

    def __call__(self, examples: Examples, competitors: Competitors, compute: torch.dtype) -> Float[Tensor, ""]:
        queries = READOUTS[self.settings.readout](examples.queries, examples.positives, self.settings.power)
        classes = Classes(competitors.vectors, competitors.corrected(), exclusions(examples, competitors), contain_positives=False)
        own = pooled_scores(queries, examples.positives) + self.correction(examples, competitors)
        blocks = Blocks(self.settings.block_elements, compute)
        if self.settings.hardness > 0:
            return blocked_loss(HardSoftmax(self.settings.hardness), queries, own, classes, examples.weights, blocks)
        return cross_entropy(queries, own, classes, examples.weights, blocks)

    @abc.abstractmethod
    def correction(self, examples: Examples, competitors: Competitors) -> Float[Tensor, " P"]:
        """What is added to the positive's score."""


class SampledSoftmax(AbstractSampledSoftmax):
    """The usual correction: the positive's score less its own log Q, like every other class.

    (Bengio & Senecal, 2008; TensorFlow's sampled_softmax_loss.) The number of draws cancels. It treats the positive as one
    draw among the others, which it is not: it is there with probability one.
    """

    def correction(self, examples: Examples, competitors: Competitors) -> Float[Tensor, " P"]:
        del examples
        assert competitors.positive_log_q is not None  # noqa: S101 - `corrected` has looked
        return -competitors.positive_log_q


class CorrectedLogQ(AbstractSampledSoftmax):
    """The refined correction (Khrylchenko et al., RecSys 2025): the positive is no sampled class.

    The paper's loss is sg(1 - p) (-s+ + log sum_j e^(s_j - log Q'_j)) with Q'_j = Q_j / (1 - Q_+), the distribution of a
    negative once hits are rejected, and p = e^s+ / (e^s+ + 1/n sum_j e^(s_j - log Q'_j)) over n such negatives. Its gradient
    is exactly that of -log p, so -log p is what is computed: one pass instead of two, and a value that estimates
    the full softmax's. All classes of p share the factor (1 - Q_+) / n, which therefore goes to the positive's score.
    """

    def correction(self, examples: Examples, competitors: Competitors) -> Float[Tensor, " P"]:
        assert competitors.positive_log_q is not None  # noqa: S101 - `corrected` has looked
        left = (competitors.draws - _hits(examples, competitors)).clamp(min=1.0)
        return left.log() - torch.log1p(-competitors.positive_log_q.exp().clamp(max=1.0 - 1e-6))


def _hits(examples: Examples, competitors: Competitors) -> Float[Tensor, " P"]:
    """How many draws gave the positive itself."""
    assert competitors.rows is not None  # noqa: S101 - `exclusions` has looked
    rows, order = competitors.rows.sort()
    counts = torch.ones_like(rows, dtype=torch.float64) if competitors.counts is None else competitors.counts[order].double()
    until = torch.cat([counts.new_zeros(1), counts.cumsum(dim=0)])
    first, past = (torch.searchsorted(rows, examples.positive_rows, right=right) for right in (False, True))
    return (until[past] - until[first]).to(torch.float32)
