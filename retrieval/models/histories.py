"""What a user encoder reads: windows of item rows, built for a batch by gathers."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Owners:
    """Whose windows are gathered, for models that read fields of users and events."""

    users: Int[Tensor, " B"]
    """User rows of the dataset."""
    first: Int[Tensor, " B"]
    """Where each user's first visible event lies in the event arrays, or would lie if it were there."""
    places: Int[Tensor, " E"] | None = None
    """Where the events of the arrays lie in the log; None: where they lie in the arrays."""


@dataclass(frozen=True)
class Context:
    """What is known of windows besides their items."""

    users: Int[Tensor, " B"]
    before: Int[Tensor, " B"]
    """Visible events before the window."""
    places: Int[Tensor, "B L"]
    """Where the events lie in the log; of some event where invalid."""


@dataclass(frozen=True)
class Histories:
    """The last events of B users, oldest first, left-aligned: position 0 holds the oldest visible event.

    Left alignment ties position i to "the i-th event of the window" in training and in serving alike, which
    position-dependent encoders need and which makes training on all prefixes of a window exact. There is no
    padding item: rows beyond the history are 0 and `valid` is False there.
    """

    items: Int[Tensor, "B L"]
    valid: Bool[Tensor, "B L"]
    ages: Float[Tensor, "B L"]
    """Time between each event and the last of the window, in units of the log's time; 0 where invalid."""
    context: Context | None = None
    """There where a model reads fields of users or events."""

    @property
    def lengths(self) -> Int[Tensor, " B"]:
        """The number of valid events of every window."""
        return self.valid.sum(dim=1)


def gather_histories(
    items: Int[Tensor, " E"],
    times: Int[Tensor, " E"],
    start: Int[Tensor, " B"],
    end: Int[Tensor, " B"],
    length: int,
    owners: Owners | None = None,
) -> Histories:
    """Windows of the event arrays [start, end), truncated to their last `length` events.

    Args:
        items: item rows of all events, users one after the other.
        times: their times.
        start: first event of each window, a position in `items`.
        end: one past the last event of each window.
        length: L.
        owners: whose they are, where a model asks for it.
    """
    start = torch.maximum(start, end - length)
    positions = start[:, None] + torch.arange(length, device=items.device)
    valid = positions < end[:, None]
    positions = positions.clamp(max=max(items.numel() - 1, 0))
    last = times[(end - 1).clamp(min=0)].to(torch.int64)
    ages = (last[:, None] - times[positions]).to(torch.float32)
    context = None
    if owners is not None:
        places = positions if owners.places is None else owners.places[positions]
        context = Context(owners.users, start - owners.first, places)
    return Histories(items[positions].to(torch.int64) * valid, valid, ages * valid, context)
