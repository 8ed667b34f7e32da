"""Full and sampled softmax."""

import torch
from jaxtyping import Float
from torch import Tensor

from retrieval.core.tables import Table
from retrieval.losses.abstract import AbstractLoss, Competitors, Examples
from retrieval.losses.cross_entropy import Blocks, Classes, cross_entropy
from retrieval.losses.exclusions import Exclusions
from retrieval.losses.readouts import READOUTS, Queries, pooled_scores
from retrieval.losses.settings import LossSettings


class FullSoftmax(AbstractLoss):
    """-log softmax of the positive over the whole catalog, in blocks."""

    def __init__(self, settings: LossSettings) -> None:
        self.settings = settings

    def __call__(self, examples: Examples, competitors: Competitors, compute: torch.dtype) -> Float[Tensor, ""]:
        queries = _read_out(examples, self.settings)
        own = pooled_scores(queries, examples.positives)
        classes = Classes(competitors.vectors, None, None, contain_positives=True)
        return cross_entropy(queries, own, classes, examples.weights, Blocks(self.settings.block_elements, compute))


class SampledSoftmax(AbstractLoss):
    """-log softmax of the positive against shared negatives, each class corrected by -log Q of one draw.

    Both the positive and the negatives are corrected (Bengio & Senecal, 2008; TensorFlow's sampled_softmax_loss), so
    the constant log M cancels. Negatives equal to the positive are no competitors.
    """

    def __init__(self, settings: LossSettings) -> None:
        self.settings = settings

    def __call__(self, examples: Examples, competitors: Competitors, compute: torch.dtype) -> Float[Tensor, ""]:
        if competitors.rows is None or competitors.log_q is None or competitors.positive_log_q is None:
            raise ValueError("sampled softmax needs the rows and the log probabilities of its negatives")
        queries = _read_out(examples, self.settings)
        own = pooled_scores(queries, examples.positives) - competitors.positive_log_q
        excluded = Exclusions(competitors.rows, examples.positive_rows, competitors.known)
        classes = Classes(competitors.vectors, -competitors.log_q, excluded, contain_positives=False)
        return cross_entropy(queries, own, classes, examples.weights, Blocks(self.settings.block_elements, compute))


def _read_out(examples: Examples, settings: LossSettings) -> Queries:
    return READOUTS[settings.readout](examples.queries, examples.positives, settings.power)


LOSSES: Table[type[FullSoftmax | SampledSoftmax]] = Table("loss", {"full-softmax": FullSoftmax, "sampled-softmax": SampledSoftmax})
