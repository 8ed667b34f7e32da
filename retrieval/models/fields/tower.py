"""The fields of a row brought together: gated, summed, and read by layers."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from retrieval.models.fields.settings import FieldsSettings
from retrieval.models.gates.gatenet import HiddenGate
from retrieval.models.gates.settings import GateNetSettings
from retrieval.models.gates.table import build_gate

_HIDDEN = "hidden layer"


class GatedSum(nn.Module):
    """sum_f v_f + layers([v_1, .., v_F]), v the gated fields.

    The layers' last one begins at zero, so that a tower begins as the sum of its fields whatever stands over them.
    """

    def __init__(self, fields: int, dimension: int, settings: FieldsSettings) -> None:
        super().__init__()
        self.gate = build_gate(settings.gate, fields, dimension)
        self.layers = _layers(fields, dimension, settings) if settings.layers else None

    def forward(self, fields: Float[Tensor, "R F D"]) -> Float[Tensor, "R D"]:
        gated = fields if self.gate is None else self.gate(fields)
        total = gated.sum(dim=1)
        return total if self.layers is None else total + self.layers(gated.flatten(1))

    @torch.no_grad()
    def mean_gates(self, fields: Float[Tensor, "R F D"], names: Sequence[str]) -> dict[str, Float[Tensor, " R"]]:
        """How much of every field, and of every gated hidden layer, is let through, on average over its numbers."""
        found, gated = dict[str, Tensor](), fields
        if self.gate is not None:
            found, gated = dict(zip(names, self.gate.weights(fields).mean(dim=2).unbind(dim=1), strict=True)), self.gate(fields)
        values = gated.flatten(1)
        for block in self.layers or ():
            if isinstance(block, HiddenGate):
                number = 1 + sum(name.startswith(_HIDDEN) for name in found)
                found[f"{_HIDDEN} {number}"] = block.weights(values).mean(dim=1)
            values = block(values)
        return found


def _layers(fields: int, dimension: int, settings: FieldsSettings) -> nn.Sequential:
    blocks: list[nn.Module] = []
    for number in range(settings.layers):
        last = number + 1 == settings.layers
        linear = nn.Linear(fields * dimension if number == 0 else dimension, dimension)
        blocks += [linear] if last else [linear, nn.ReLU(), *_hidden_gate(dimension, settings)]
        if last:
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
    return nn.Sequential(*blocks)


def _hidden_gate(width: int, settings: FieldsSettings) -> list[nn.Module]:
    gate = settings.gate
    return [HiddenGate(width, gate.activation)] if isinstance(gate, GateNetSettings) and gate.hidden else []
