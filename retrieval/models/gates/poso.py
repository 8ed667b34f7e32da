"""POSO: personalised cold-start modules (Dai et al., 2022): who the user is scales what a module makes of the rest."""

import abc
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from retrieval.models.gates.settings import PosoSettings

_SCALE = 2.0
"""C of the paper: gates begin at one half, so that the product begins at the scale of the module."""


class PosoGate(nn.Module):
    """C * sigmoid(W2 relu(W1 pc)) (section 3.1): two layers, from the keys alone. Begins at one."""

    def __init__(self, keys: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.hidden, self.outputs = nn.Linear(keys, hidden), nn.Linear(hidden, outputs)
        nn.init.zeros_(self.outputs.weight)
        nn.init.zeros_(self.outputs.bias)

    def forward(self, keys: Float[Tensor, "R P"]) -> Float[Tensor, "R G"]:
        return _SCALE * torch.sigmoid(self.outputs(torch.relu(self.hidden(keys))))


class PosoModule(nn.Module, abc.ABC):
    """x + W module(x, pc) behind the encoder, x its interests: W begins at zero, so that a model begins as it is without.

    Differs from the paper, which replaces layers inside of the network by personalised ones: here the module is a residual one
    behind the whole encoder, which stays as it is, and the tokens are interests and not behaviours.
    """

    def __init__(self, width: int, dimension: int) -> None:
        super().__init__()
        self.outputs = nn.Linear(width, dimension, bias=False)
        nn.init.zeros_(self.outputs.weight)

    def forward(self, vectors: Float[Tensor, "R K D"], valid: Bool[Tensor, "R K"], keys: Float[Tensor, "R P"]) -> Float[Tensor, "R K D"]:
        change: Tensor = self.outputs(self.personal(vectors, valid, keys))
        return vectors + change

    @abc.abstractmethod
    def personal(self, vectors: Float[Tensor, "R K D"], valid: Bool[Tensor, "R K"], keys: Float[Tensor, "R P"]) -> Float[Tensor, "R K W"]:
        """What the module makes of the vectors of users with such keys."""

    @abc.abstractmethod
    def gates(self, keys: Float[Tensor, "R P"]) -> Float[Tensor, "R G"]:
        """What the module's parts are multiplied with."""


class PosoLayer(PosoModule):
    """The form of an MLP (equation 7): C gate(pc) * relu(W x), a gate for every activation."""

    def __init__(self, settings: PosoSettings, dimension: int, keys: int) -> None:
        super().__init__(settings.hidden, dimension)
        self.layer = nn.Linear(dimension, settings.hidden)
        self.gate = PosoGate(keys, settings.hidden, settings.hidden)

    def personal(self, vectors: Tensor, valid: Tensor, keys: Tensor) -> Tensor:
        del valid
        return self.gates(keys)[:, None] * torch.relu(self.layer(vectors))

    def gates(self, keys: Float[Tensor, "R P"]) -> Float[Tensor, "R G"]:
        found: Tensor = self.gate(keys)
        return found


class PosoAttention(PosoModule):
    """The form of attention (equations 9 to 12), here of the interests among themselves.

    Queries are plain, keys K * gate(pc) number by number, values personal: sum_i gate_i(pc) * (V_i x) over `experts` parts.
    Invalid interests are not attended to.
    """

    def __init__(self, settings: PosoSettings, dimension: int, keys: int) -> None:
        super().__init__(dimension, dimension)
        self.heads, self.parts = settings.heads, settings.experts
        self.queries, self.keys = nn.Linear(dimension, dimension, bias=False), nn.Linear(dimension, dimension, bias=False)
        self.values = nn.Linear(dimension, settings.experts * dimension, bias=False)
        self.key_gate = PosoGate(keys, settings.hidden, dimension)
        self.value_gate = PosoGate(keys, settings.hidden, settings.experts * dimension)

    def personal(self, vectors: Tensor, valid: Tensor, keys: Tensor) -> Tensor:
        key = self.keys(vectors) * self.key_gate(keys)[:, None]
        parts = (self.values(vectors) * self.value_gate(keys)[:, None]).unflatten(2, (self.parts, -1))
        query, key, value = (self._headed(each) for each in (self.queries(vectors), key, parts.sum(dim=2)))
        # Someone without a valid interest attends to all of them: no row is without a number.
        seen = (valid | ~valid.any(dim=1, keepdim=True))[:, None, None]
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=seen).transpose(1, 2).flatten(2)

    def gates(self, keys: Float[Tensor, "R P"]) -> Float[Tensor, "R G"]:
        return torch.cat([self.key_gate(keys), self.value_gate(keys)], dim=1)

    def _headed(self, vectors: Float[Tensor, "R K D"]) -> Float[Tensor, "R H K C"]:
        return vectors.view(*vectors.shape[:2], self.heads, -1).transpose(1, 2)


class PosoExperts(PosoModule):
    """The form of a mixture of experts (equation 14): sum_e softmax(G x)_e * C gate_e(pc) * relu(W_e x), a gate an expert."""

    def __init__(self, settings: PosoSettings, dimension: int, keys: int) -> None:
        super().__init__(settings.hidden, dimension)
        self.count = settings.experts
        self.experts = nn.Linear(dimension, settings.experts * settings.hidden)
        self.mixture = nn.Linear(dimension, settings.experts)
        self.gate = PosoGate(keys, settings.hidden, settings.experts)

    def personal(self, vectors: Tensor, valid: Tensor, keys: Tensor) -> Tensor:
        del valid
        shares = torch.softmax(self.mixture(vectors), dim=2) * self.gates(keys)[:, None]
        made = torch.relu(self.experts(vectors)).view(*vectors.shape[:2], self.count, -1)
        return (shares[..., None] * made).sum(dim=2)

    def gates(self, keys: Float[Tensor, "R P"]) -> Float[Tensor, "R G"]:
        found: Tensor = self.gate(keys)
        return found


def build_poso(settings: PosoSettings, dimension: int, keys: int) -> PosoModule | None:
    """The module of the settings' form, whose gates see `keys` numbers; None without one."""
    forms: dict[str, Callable[[PosoSettings, int, int], PosoModule]] = {"mlp": PosoLayer, "attention": PosoAttention, "mmoe": PosoExperts}
    return forms[settings.form](settings, dimension, keys) if settings.form in forms else None
