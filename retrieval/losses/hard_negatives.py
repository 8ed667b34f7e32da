"""Interest-aware hard negatives (Xie et al., RecSys 2023, REMI, section 3.2)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from retrieval.losses.blocked import AbstractForm, Scores, Value


@dataclass(frozen=True)
class HardSoftmax(AbstractForm):
    """-log e^s+ / (e^s+ + sum_j w_j e^(s_j) / q_j): a sampled softmax whose negatives weigh more the better they score.

    The paper wants negatives from h_j ~ e^(beta s_j), s_j the score by the interest, and weighs uniform draws by
    w_j = e^(beta s_j) / mean_k e^(beta s_k) instead. Under another sampler that mean would be one over the sampler's
    distribution; here it is one over the catalog, w_j = e^(beta s_j) / (sum_k e^(beta s_k)/q_k / sum_k 1/q_k), so
    that sum_j w_j e^(s_j) / (M q_j) estimates N E_h[e^s] whatever the sampler. With uniform draws this is the
    paper's form, and beta = 0 is the sampled softmax. The weights are constants of the step (the reference code
    differentiates through them, which scales the slope of a hard negative by 1 + beta and pushes against the weights).

    The log weights of the competitors are log(draws) - log q, and `own` is corrected by the caller.
    """

    hardness: float

    def terms(self, scores: Scores) -> list[Float[Tensor, "p n"]]:
        harder = self.hardness * scores.others + scores.log_weights
        return [harder + scores.others, harder, scores.log_weights.expand_as(scores.others)]

    def value(self, own: Float[Tensor, " p"], sums: Float[Tensor, "3 p"]) -> Value:
        partition = torch.logaddexp(own, sums[0] - _mean(sums))
        return Value(partition - own, torch.exp(own - partition) - 1.0)

    def slopes(self, scores: Scores, sums: Float[Tensor, "3 p 1"]) -> Float[Tensor, "p n"]:
        partition = torch.logaddexp(scores.own, sums[0] - _mean(sums))
        return torch.exp((1.0 + self.hardness) * scores.others + scores.log_weights - (_mean(sums) + partition))


def _mean(sums: Tensor) -> Tensor:
    """The logarithm of the mean of e^(beta s) over the catalog; 0 where nothing competes."""
    return torch.where(sums[2] == -torch.inf, 0.0, sums[1] - sums[2])
