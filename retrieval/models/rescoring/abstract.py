"""The contract of a re-scorer, and the layers that both end in."""

import abc
import itertools
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from retrieval.models.rescoring.dice import Dice


class GainLayers(nn.Module):
    """Layers with Dice down to one number, which is 0 at first: a re-scorer begins as the order of recall."""

    def __init__(self, size: int, hidden: Sequence[int]) -> None:
        super().__init__()
        widths = [size, *hidden]
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in itertools.pairwise(widths))
        self.activations = nn.ModuleList(Dice(width) for width in hidden)
        self.last = nn.Linear(widths[-1], 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, values: Float[Tensor, "B C S"], present: Bool[Tensor, "B C"]) -> Float[Tensor, "B C"]:
        for layer, activation in zip(self.layers, self.activations, strict=True):
            values = activation(layer(values), present)
        gains: Tensor = self.last(values).squeeze(-1)
        return gains


class AbstractRescorer(nn.Module, abc.ABC):
    """A history and its recalled candidates -> what each candidate's score gains.

    What is not valid or not present never changes the gain of what is.
    """

    learns_histories: ClassVar[bool] = False
    """It has a loss of its own on them."""
    layers: GainLayers

    def forward(
        self,
        events: Float[Tensor, "B L D"],
        valid: Bool[Tensor, "B L"],
        targets: Float[Tensor, "B C D"],
        present: Bool[Tensor, "B C"],
        recalled: Float[Tensor, "B C"],
    ) -> Float[Tensor, "B C"]:
        """The gains of C candidates of B users, from what is read for each, the candidate itself and its score in recall.

        Args:
            events: item vectors of the history, oldest first and left-aligned.
            valid: which of them there are.
            targets: item vectors of the candidates.
            present: which of them there are.
            recalled: how recall scored them, standardised in the user's own pool.
        """
        read = self.read(events, valid, targets, present)
        gains: Tensor = self.layers(torch.cat([read, targets, recalled[:, :, None]], dim=-1), present)
        return gains

    @abc.abstractmethod
    def read(
        self, events: Float[Tensor, "B L D"], valid: Bool[Tensor, "B L"], targets: Float[Tensor, "B C D"], present: Bool[Tensor, "B C"]
    ) -> Float[Tensor, "B C D"]:
        """What the history says, read for each candidate."""

    def auxiliary(
        self,
        events: Float[Tensor, "B L D"],
        valid: Bool[Tensor, "B L"],  # noqa: ARG002 (a re-scorer may have one)
        others: Float[Tensor, "B L D"],  # noqa: ARG002
    ) -> Float[Tensor, ""]:
        """A loss of its own on histories; `others` are vectors of items drawn for each position. 0 where there is none."""
        return events.new_zeros(())
