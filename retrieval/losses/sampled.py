"""What losses against sampled negatives share: readout, accidental hits, blocks."""

import abc

import torch
from jaxtyping import Float
from torch import Tensor

from retrieval.losses.abstract import AbstractLoss, Competitors, Examples
from retrieval.losses.blocked import AbstractForm, blocked_loss
from retrieval.losses.cross_entropy import Blocks, Classes
from retrieval.losses.exclusions import Exclusions
from retrieval.losses.readouts import READOUTS, pooled_scores
from retrieval.losses.settings import LossSettings


class AbstractSampledLoss(AbstractLoss):
    """A loss whose negatives count as they were drawn, without a correction."""

    def __init__(self, settings: LossSettings) -> None:
        self.settings = settings

    def __call__(self, examples: Examples, competitors: Competitors, compute: torch.dtype) -> Float[Tensor, ""]:
        queries = READOUTS[self.settings.readout](examples.queries, examples.positives, self.settings.power)
        own, form = pooled_scores(queries, examples.positives), self.form(competitors)
        excluded = exclusions(examples, competitors)
        classes = Classes(competitors.vectors, competitors.log_counts(), excluded, contain_positives=False)
        return blocked_loss(form, queries, own, classes, examples.weights, Blocks(self.settings.block_elements, compute))

    @abc.abstractmethod
    def form(self, competitors: Competitors) -> AbstractForm:
        """The loss of one example."""


def exclusions(examples: Examples, competitors: Competitors) -> Exclusions:
    """Accidental hits, and what else is not to compete.

    Raises:
        ValueError: the competitors came without their rows.
    """
    if competitors.rows is None:
        raise ValueError("a sampled loss needs the rows of its negatives")
    return Exclusions(competitors.rows, examples.positive_rows, competitors.known)
