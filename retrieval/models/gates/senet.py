"""SENet over fields: squeeze every field to a number, excite all of them together (FiBiNET: Huang et al., RecSys 2019)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from retrieval.models.gates.abstract import AbstractFieldGate
from retrieval.models.gates.activations import ACTIVATIONS
from retrieval.models.gates.settings import SENetSettings


class SENet(AbstractFieldGate):
    """a = act(W2 relu(W1 z)), v_f = a_f e_f, z_f the squeezed field (section 3.3).

    W1 [max(1, F // r), F] and W2 [F, max(1, F // r)] have no biases, as in the paper: 2 F F / r numbers. Differs from it:
    squeezing by the largest or by learned weights, sigmoids, and a weight for every number (W2 [F D, F // r]) are
    settings. With `2-sigmoid` W2 begins at zero, and the gate at one; a ReLU begins at random.
    """

    def __init__(self, fields: int, dimension: int, settings: SENetSettings) -> None:
        super().__init__()
        self.settings = settings
        hidden = max(1, fields // settings.reduction)
        self.squeeze = nn.Parameter(torch.full((dimension,), 1.0 / dimension)) if settings.squeeze == "learned" else None
        self.reduce = nn.Linear(fields, hidden, bias=False)
        width = dimension if settings.weights == "element-wise" else 1
        self.excite = nn.Linear(hidden, fields * width, bias=False)
        self.activation = ACTIVATIONS[settings.excitation]
        if settings.excitation == "2-sigmoid":
            nn.init.zeros_(self.excite.weight)

    def weights(self, fields: Float[Tensor, "R F D"]) -> Float[Tensor, "R F W"]:
        excited = self.activation(self.excite(torch.relu(self.reduce(self._squeezed(fields)))))
        return excited.view(len(fields), fields.shape[1], -1)

    def _squeezed(self, fields: Float[Tensor, "R F D"]) -> Float[Tensor, "R F"]:
        if self.squeeze is not None:
            return fields @ self.squeeze
        return fields.mean(dim=2) if self.settings.squeeze == "mean" else fields.amax(dim=2)
