"""Users whose future is hidden while a model trains, and what is measured on them."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Int
from torch import Tensor

from retrieval.models.histories import Histories, gather_histories


@dataclass(frozen=True)
class HeldOut:
    """Users whose future is hidden: visible events [start, cut), targets as one sorted key user * N + item."""

    items: Int[Tensor, " E"]
    times: Int[Tensor, " E"]
    start: Int[Tensor, " V"]
    cut: Int[Tensor, " V"]
    target_keys: Int[Tensor, " T"]
    n_targets: Int[Tensor, " V"]

    def to(self, device: torch.device) -> "HeldOut":
        """The same on a device."""
        return HeldOut(*(getattr(self, field.name).to(device) for field in fields(self)))

    def histories(self, users: Int[Tensor, " B"], length: int) -> Histories:
        """What some of the users are encoded from: their last visible events."""
        return gather_histories(self.items, self.times, self.start[users], self.cut[users], length)

    def seen(self, users: Int[Tensor, " B"]) -> tuple[Int[Tensor, " S"], Int[Tensor, " S"]]:
        """The visible events of some users: whose of the B each is, and its item."""
        start, lengths = self.start[users], self.cut[users] - self.start[users]
        owner = torch.repeat_interleave(lengths)
        first = torch.cumsum(lengths, 0) - lengths
        event = torch.arange(len(owner), device=start.device) - first[owner] + start[owner]
        return owner, self.items[event].long()


@dataclass(frozen=True)
class ValidationSettings:
    """What is measured, and in which portions."""

    n: int = 50
    filter_seen: bool = False
    batch_users: int = 256
    scores: int = 1 << 25
    """Most scores held at a time: a large catalog makes the portions smaller."""
