"""The contract of a gate over fields."""

import abc

from jaxtyping import Float
from torch import Tensor, nn


class AbstractFieldGate(nn.Module, abc.ABC):
    """Vectors of F fields -> the same, each scaled."""

    @abc.abstractmethod
    def weights(self, fields: Float[Tensor, "R F D"]) -> Float[Tensor, "R F W"]:
        """What every field is multiplied with: one number (W = 1), or one for each of its own (W = D)."""

    def forward(self, fields: Float[Tensor, "R F D"]) -> Float[Tensor, "R F D"]:
        return fields * self.weights(fields)
