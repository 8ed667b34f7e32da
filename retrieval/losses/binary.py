"""Binary cross-entropy, plain and calibrated for sampled negatives."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from retrieval.losses.abstract import Competitors
from retrieval.losses.blocked import AbstractForm, Scores, Value
from retrieval.losses.sampled import AbstractSampledLoss


@dataclass(frozen=True)
class BinaryForm(AbstractForm):
    """-(power log sigma(s+) + sum_j c_j log(1 - sigma(s_j))) / (M + 1)."""

    power: float
    draws: float

    def terms(self, scores: Scores) -> list[Float[Tensor, "p n"]]:
        return [softplus(scores.others).log() + scores.log_weights]

    def value(self, own: Float[Tensor, " p"], sums: Float[Tensor, "1 p"]) -> Value:
        loss = self.power * softplus(-own) + sums[0].exp()
        return Value(loss / (self.draws + 1.0), -self.power * torch.sigmoid(-own) / (self.draws + 1.0))

    def slopes(self, scores: Scores, sums: Float[Tensor, "1 p 1"]) -> Float[Tensor, "p n"]:
        del sums
        return torch.exp(scores.log_weights) * torch.sigmoid(scores.others) / (self.draws + 1.0)


class BinaryCrossEntropy(AbstractSampledLoss):
    """The mean of the binary cross-entropies of the positive and its M negatives (Kang & McAuley, ICDM 2018, has M = 1).

    Nothing is corrected by log Q: a draw counts as it comes, so the sampler decides what is learned.
    """

    def form(self, competitors: Competitors) -> AbstractForm:
        return BinaryForm(self.power(competitors), competitors.draws)

    def power(self, competitors: Competitors) -> float:
        """The exponent of the positive's probability."""
        del competitors
        return 1.0


class GeneralisedBinaryCrossEntropy(BinaryCrossEntropy):
    """gBCE (Petrov & Macdonald, RecSys 2023, section 5): the positive's probability to the power beta.

    beta = a (t (1 - 1/a) + 1/a) = 1 - t (1 - a), where a = M / (N - 1) is the share of the catalog that is drawn
    and t the `calibration`: 0 is plain binary cross-entropy, which is overconfident under sampling, 1 is fully calibrated.
    The power is a factor of log sigma, so no probability is ever formed. Differs from the paper: negatives
    are shared by the batch, and need not be uniform (beta is derived for uniform ones).
    """

    def power(self, competitors: Competitors) -> float:
        share = min(1.0, competitors.draws / max(1, competitors.n_items - 1))
        return 1.0 - self.settings.calibration * (1.0 - share)
