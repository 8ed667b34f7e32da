"""The functions that gates end in."""

from collections.abc import Callable

import torch
from torch import Tensor

from retrieval.core.tables import Table


def _linear(values: Tensor) -> Tensor:
    return values


def _two_sigmoid(values: Tensor) -> Tensor:
    """One at zero: with weights of zero a gate that lets everything through."""
    return 2.0 * torch.sigmoid(values)


ACTIVATIONS: Table[Callable[[Tensor], Tensor]] = Table(
    "activation", {"linear": _linear, "relu": torch.relu, "sigmoid": torch.sigmoid, "2-sigmoid": _two_sigmoid, "tanh": torch.tanh}
)
