"""Encoders that read a history event by event, and what it takes to run them over windows of unequal length."""

import abc
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from retrieval.models.encoder import AbstractUserEncoder
from retrieval.models.histories import Histories
from retrieval.models.interests import Interests

_FIRST_CUT = 4
_DENSE = 0.6
"""Windows that are filled by so much are run whole."""


class AbstractRecurrentEncoder(AbstractUserEncoder):
    """An encoder whose knowledge of a history is a state of fixed size, so that it can go on where it stopped."""

    state_size: int
    """S, numbers a user; a state of zeros knows nothing."""

    @abc.abstractmethod
    def advance(
        self, events: Float[Tensor, "B L D"], histories: Histories, state: Float[Tensor, "B S"]
    ) -> tuple[Interests, Float[Tensor, "B S"]]:
        """The interests after every position, [B*L,K,D], and the state after the last event of each window.

        Reading the two halves of a window one after the other gives what reading it at once gives.

        Args:
            events: item vectors of the events to read, zero where invalid.
            histories: the windows they make; at least one event a row is valid.
            state: what is known from before.
        """

    def prefixes(self, events: Float[Tensor, "B L D"], histories: Histories) -> Interests:
        return self.advance(events, histories, events.new_zeros(len(events), self.state_size))[0]


def run_gru(
    layer: nn.GRU, inputs: Float[Tensor, "B L D"], lengths: Int[Tensor, " B"], start: Float[Tensor, "B H"]
) -> Float[Tensor, "B L H"]:
    """The states of a one-layer GRU after every position; behind a window's end they mean nothing.

    Windows of very unequal length are cut into blocks of positions that double in length, and each block is run for
    the windows that reach it: less than half of what is computed is padding, at the price of a few calls. (On the CPU
    torch's packed sequences make a call a position and lose to plain padding unless nearly everything is padding.)
    """
    if inputs.is_cuda or int(lengths.sum()) > _DENSE * inputs.shape[0] * inputs.shape[1]:
        states: Tensor = layer(inputs, start[None].contiguous())[0]
        return states
    order = torch.argsort(lengths, descending=True, stable=True)
    return _run_blocks(layer, inputs[order], lengths[order], start[order])[torch.argsort(order)]


def _run_blocks(layer: nn.GRU, inputs: Tensor, lengths: Tensor, state: Tensor) -> Tensor:
    """The same for windows in falling order of length."""
    parts = []
    for first, last in _blocks(int(lengths[0])):
        reaching = int((lengths > first).sum())
        states = layer(inputs[:reaching, first:last], state[None, :reaching].contiguous())[0]
        state = states[:, -1]
        parts.append(functional.pad(states, (0, 0, 0, 0, 0, len(inputs) - reaching)))
    return functional.pad(torch.cat(parts, dim=1), (0, 0, 0, inputs.shape[1] - sum(part.shape[1] for part in parts)))


def _blocks(length: int) -> Iterator[tuple[int, int]]:
    first, last = 0, _FIRST_CUT
    length = max(length, 1)  # a batch without any event has states too, if none that mean anything
    while first < length:
        yield first, min(last, length)
        first, last = last, 2 * last


def at_last(steps: Float[Tensor, "B L D"], lengths: Int[Tensor, " B"]) -> Float[Tensor, "B D"]:
    """What stands at the last valid position of each window."""
    return steps[torch.arange(len(steps), device=steps.device), (lengths - 1).clamp(min=0)]
