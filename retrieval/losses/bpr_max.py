"""BPR-max with score regularisation (Hidasi & Karatzoglou, CIKM 2018, section 3.2)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from retrieval.losses.abstract import Competitors
from retrieval.losses.blocked import AbstractForm, Scores, Value
from retrieval.losses.sampled import AbstractSampledLoss


@dataclass(frozen=True)
class BPRMaxForm(AbstractForm):
    """-log sum_j m_j sigma(s+ - s_j) + regularization * sum_j m_j s_j^2, with m the softmax over the negatives.

    The four sums are, before the logarithm, e^s, e^s sigma(s+ - s), e^s s^2 and e^s sigma(s+ - s) sigma(s - s+), so
    a positive far below its negatives gives a large loss and never the logarithm of an underflown zero.
    """

    regularization: float

    def terms(self, scores: Scores) -> list[Float[Tensor, "p n"]]:
        weighed, ahead = scores.others + scores.log_weights, scores.own - scores.others
        won = weighed + logsigmoid(ahead)
        return [weighed, won, weighed + scores.others.square().log(), won + logsigmoid(-ahead)]

    def value(self, own: Float[Tensor, " p"], sums: Float[Tensor, "4 p"]) -> Value:
        del own
        weighed, won, square, contested = _finite(sums)
        loss = (weighed - won) + self.regularization * torch.exp(square - weighed)
        return Value(loss, -torch.exp(contested - won))

    def slopes(self, scores: Scores, sums: Float[Tensor, "4 p 1"]) -> Float[Tensor, "p n"]:
        weighed, won, square, _ = _finite(sums)
        log_share = scores.others + scores.log_weights
        share = torch.exp(log_share - weighed)
        won_share = torch.exp(log_share + 2.0 * logsigmoid(scores.own - scores.others) - won)
        pull = scores.others.square() + 2.0 * scores.others - torch.exp(square - weighed)
        return share - won_share + self.regularization * share * pull


def _finite(sums: Tensor) -> tuple[Tensor, ...]:
    """The sums, and for an example without competitors those that make its loss and its slopes zero."""
    alone = sums[0] == -torch.inf
    first, second = sums[:2].masked_fill(alone, 0.0)
    return first, second, sums[2], sums[3]


class BPRMax(AbstractSampledLoss):
    """BPR against the negatives that score best, and a pull of those scores towards zero.

    As in the paper nothing is corrected by log Q: the sampler decides what is learned (the paper's are the batch and
    popularity^alpha).
    """

    def form(self, competitors: Competitors) -> AbstractForm:
        del competitors
        return BPRMaxForm(self.settings.score_regularization)
