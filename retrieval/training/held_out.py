"""Users whose future is hidden while a model trains, and what is measured on them."""

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from retrieval.models.histories import Histories, Owners, gather_histories


@dataclass(frozen=True)
class HeldOut:
    """Users whose future is hidden: visible events [start, cut), targets as one sorted key user * N + item."""

    items: Int[Tensor, " E"]
    times: Int[Tensor, " E"]
    start: Int[Tensor, " V"]
    cut: Int[Tensor, " V"]
    target_keys: Int[Tensor, " T"]
    n_targets: Int[Tensor, " V"]
    users: Int[Tensor, " V"] | None = None
    """Their rows in the dataset, and"""
    places: Int[Tensor, " E"] | None = None
    """where their events lie in the log; both for models that read fields."""
    blocked: Bool[Tensor, " N"] | None = None
    """Items that serving gives to nobody, so that nobody is ranked on them here; None: every item may be given."""

    def to(self, device: torch.device) -> "HeldOut":
        """The same on a device."""
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: each.to(device) for name, each in held.items() if each is not None})

    def histories(self, users: Int[Tensor, " B"], length: int) -> Histories:
        """What some of the users are encoded from: their last visible events."""
        owners = None if self.users is None else Owners(self.users[users], self.start[users], self.places)
        return gather_histories(self.items, self.times, self.start[users], self.cut[users], length, owners)

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
