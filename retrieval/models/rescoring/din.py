"""DIN: Deep Interest Network for Click-Through Rate Prediction (Zhou et al., KDD 2018)."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from retrieval.models.rescoring.abstract import AbstractRescorer, GainLayers
from retrieval.models.rescoring.dice import Dice
from retrieval.models.rescoring.settings import RescorerBlocks


class ActivationUnit(nn.Module):
    """How much each event of a history says about a candidate: layers over [q, k, q-k, q*k], no softmax (section 4.3).

    The first layer is one matrix W = [W_q W_k W_d W_p], and W [q,k,q-k,q*k] = (W_q + W_d) q + (W_k - W_d) k + W_p (q*k): only
    the last part is computed for every pair, which is a quarter of the work, and no vector of 4 D a pair is ever made.
    """

    def __init__(self, dimension: int, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(4 * dimension, width)
        self.activation = Dice(width)
        self.last = nn.Linear(width, 1)

    def forward(
        self, events: Float[Tensor, "B L D"], valid: Bool[Tensor, "B L"], targets: Float[Tensor, "B C D"], present: Bool[Tensor, "B C"]
    ) -> Float[Tensor, "B C L"]:
        """The weights; 0 where there is no event or no candidate."""
        of_target, of_event, of_difference, of_product = self.hidden.weight.chunk(4, dim=1)
        alone = (targets @ (of_target + of_difference).T)[:, :, None] + (events @ (of_event - of_difference).T)[:, None]
        scaled = (targets[:, :, None] * of_product).flatten(1, 2)
        pairs = (scaled @ events.transpose(1, 2)).view(*targets.shape[:2], -1, events.shape[1]).transpose(2, 3)
        together = valid[:, None, :] & present[:, :, None]
        weights: Tensor = self.last(self.activation(alone + pairs + self.hidden.bias, together)).squeeze(-1)
        return weights * together


class DIN(AbstractRescorer):
    """The history summed with the weights that the candidate gives it, beside the candidate, through layers with Dice.

    Differs from the paper: no user profile or context; the score of recall goes in with them, and what comes out is added to it.
    """

    def __init__(self, dimension: int, blocks: RescorerBlocks) -> None:
        super().__init__()
        self.unit = ActivationUnit(dimension, blocks.attention)
        self.layers = GainLayers(2 * dimension + 1, blocks.hidden)

    def read(
        self, events: Float[Tensor, "B L D"], valid: Bool[Tensor, "B L"], targets: Float[Tensor, "B C D"], present: Bool[Tensor, "B C"]
    ) -> Float[Tensor, "B C D"]:
        weights: Tensor = self.unit(events, valid, targets, present)
        return weights @ (events * valid[:, :, None])
