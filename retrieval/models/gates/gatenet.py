"""GateNet: a gate from what it gates, over fields and over hidden layers (Huang et al., 2020)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from retrieval.models.gates.abstract import AbstractFieldGate
from retrieval.models.gates.activations import ACTIVATIONS
from retrieval.models.gates.settings import Activation, GateNetSettings


class EmbeddingGate(AbstractFieldGate):
    """g_f = act(W_f e_f), v_f = g_f * e_f (section 3.2).

    Numbers, without biases as in the paper: vector-wise F D (shared D), bit-wise F D D (shared D D). With `2-sigmoid` all
    of them begin at zero and the gate at one; otherwise they are drawn.
    """

    def __init__(self, fields: int, dimension: int, settings: GateNetSettings) -> None:
        super().__init__()
        width = dimension if settings.embedding == "bit-wise" else 1
        deviation = 0.0 if settings.activation == "2-sigmoid" else dimension**-0.5
        self.matrices = nn.Parameter(deviation * torch.randn(1 if settings.shared else fields, dimension, width))
        self.activation = ACTIVATIONS[settings.activation]

    def weights(self, fields: Float[Tensor, "R F D"]) -> Float[Tensor, "R F W"]:
        if len(self.matrices) == 1:
            return self.activation(fields @ self.matrices[0])
        return self.activation(torch.einsum("rfd,fdw->rfw", fields, self.matrices))


class HiddenGate(nn.Module):
    """a * act(W a) of a hidden layer's activations a (section 3.3), W [H,H] without a bias."""

    def __init__(self, width: int, activation: Activation) -> None:
        super().__init__()
        self.matrix = nn.Linear(width, width, bias=False)
        self.activation = ACTIVATIONS[activation]
        if activation == "2-sigmoid":
            nn.init.zeros_(self.matrix.weight)

    def forward(self, hidden: Float[Tensor, "R H"]) -> Float[Tensor, "R H"]:
        return hidden * self.weights(hidden)

    def weights(self, hidden: Float[Tensor, "R H"]) -> Float[Tensor, "R H"]:
        """What every activation is multiplied with."""
        return self.activation(self.matrix(hidden))
