"""Batches as a pure function of (seed, step): nothing to save, nothing to feed, exact after a restart."""

import abc
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from retrieval.core.errors import DataContractError
from retrieval.core.seeds import derive_seed
from retrieval.data.sequences import SequenceDataset
from retrieval.training.distributed import World
from retrieval.training.settings import ExampleSettings

_POOLED_BATCHES = 32
_USERS_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class TrainingEvents:
    """The events that may be learned from, users one after the other.

    `start` and `count` give each user's training events inside `items`; what lies behind them is the future. They stay
    on the CPU, where batches are planned; the events live where the model lives.
    """

    items: Int[Tensor, " E"]
    times: Int[Tensor, " E"]
    start: Int[Tensor, " U"]
    count: Int[Tensor, " U"]
    weights: Float[Tensor, " E"] | None = None
    later: Int[Tensor, " E"] | None = None
    """The first event of the same user that comes so much later that it may be a target; None: the next one."""
    oldest_target: int | None = None
    """No event before this time is a target; None: every one may be."""
    labels: Int[Tensor, " E"] | None = None
    """The item that each event is as a target, where that is another than as a part of a history."""

    @staticmethod
    def of(sequences: SequenceDataset, train_end: NDArray[np.int64]) -> "TrainingEvents":
        """From the arrays of a dataset; copied, because they are mapped read-only."""
        return TrainingEvents(
            items=torch.from_numpy(np.array(sequences.items)),
            times=torch.from_numpy(np.array(sequences.times)),
            start=torch.from_numpy(np.array(sequences.offsets[:-1])),
            count=torch.from_numpy(np.array(train_end)),
            weights=None if sequences.weights is None else torch.from_numpy(np.array(sequences.weights)),
        )

    def to(self, device: torch.device) -> "TrainingEvents":
        """The same with its events on a device."""
        moved = {name: getattr(self, name) for name in ("items", "times", "weights", "later", "labels")}
        return replace(self, **{name: value.to(device) for name, value in moved.items() if value is not None})

    def with_shuffled_labels(self, seed: int) -> "TrainingEvents":
        """The same where targets are the items of other training events, every event's used once; histories stay as they are."""
        trained = torch.nonzero(self._trainable()).flatten()
        labels, order = self.items.clone(), torch.randperm(len(trained), generator=torch.Generator().manual_seed(seed))
        labels[trained] = self.items[trained[order.to(trained.device)]]
        return replace(self, labels=labels)

    def targets(self, events: Int[Tensor, " P"]) -> Int[Tensor, " P"]:
        """What events are as targets: item rows, int64."""
        return (self.items if self.labels is None else self.labels)[events].to(torch.int64)

    def with_gap(self, gap: float) -> "TrainingEvents":
        """The same where a target comes at least `gap` after what is known, in units of the times."""
        owner = torch.zeros(len(self.items) + 1, dtype=torch.int64)
        owner.index_add_(0, self.start, torch.ones(len(self.start), dtype=torch.int64))
        # Users one after the other on one axis of time, each in a span longer than the log: one search for all.
        oldest = int(self.times.min())
        span = int(self.times.max()) - oldest + math.ceil(gap) + 1
        axis = owner.cumsum(0)[:-1] * span + (self.times - oldest)
        later = torch.searchsorted(axis, axis + math.ceil(gap))
        return replace(self, later=torch.maximum(later, torch.arange(1, len(axis) + 1)))

    def with_newest(self, span: float) -> "TrainingEvents":
        """The same where targets are among the events of the last `span` before the end of training."""
        return replace(self, oldest_target=self.last_time() - math.floor(span))

    def n_targets(self) -> Int[Tensor, " U"]:
        """How many events of each user may be targets: all but the first, or those of them that are new enough."""
        targets = (self.count - 1).clamp(min=0)
        if self.oldest_target is None:
            return targets
        new = torch.cat([torch.zeros(1, dtype=torch.int64), torch.cumsum(self.times.cpu() >= self.oldest_target, 0)])
        return torch.minimum(targets, new[self.start + self.count] - new[self.start])

    def counts(self, n_items: int) -> Int[Tensor, " N"]:
        """Training events of each item."""
        return torch.bincount(self.items[self._trainable()], minlength=n_items)

    def learned(self, n_items: int, length: int, horizon: int) -> Bool[Tensor, " N"]:
        """The items whose ids some step may read: as a target, or in a window of `length` events before one.

        An event that no target follows in time and that is none itself, a user's only one, say, teaches its item's id nothing.
        Random cuts and sessions may leave out a few events more.
        """
        found, targets = torch.zeros(n_items, dtype=torch.bool), self.n_targets()
        for users in torch.split(torch.nonzero(targets > 0).flatten(), _USERS_AT_ONCE):
            for rows in self._learned_by(users, targets[users], length, horizon):
                found[rows] = True
        return found

    def _learned_by(self, users: Int[Tensor, " u"], targets: Int[Tensor, " u"], length: int, horizon: int) -> Iterator[Int[Tensor, " r"]]:
        """Items that the events of users who follow one another are in windows, and as targets."""
        count, start = self.count[users], self.start[users]
        owner = torch.repeat_interleave(count)
        events = torch.arange(len(owner)) + (start - count.cumsum(0) + count)[owner]
        past = (start + count)[owner]
        following = events + 1 if self.later is None else self.later.cpu()[events]
        # Windows begin right before the first target, unless they would then be short.
        oldest = (start + torch.minimum(count - 1 - targets, (count - 1 - length).clamp(min=0)))[owner]
        trained = (events >= oldest) & (following < past)
        if self.oldest_target is not None:
            trained &= self.times.cpu()[following.clamp(max=len(self.times) - 1)] >= self.oldest_target
        first, size = int(start[0]), int(past[-1] - start[0])
        read = _covered(torch.maximum(oldest, events - length + 1)[trained] - first, events[trained] + 1 - first, size)
        asked = _covered(following[trained] - first, torch.minimum(following + horizon, past)[trained] - first, size)
        for marked, rows in ((read, self.items), (asked, self.items if self.labels is None else self.labels)):
            yield rows[first : first + size].cpu()[marked].long()

    def since(self, oldest: int) -> "TrainingEvents":
        """Only what happened at `oldest` or later may still be learned from, one event a user slot."""
        recent = torch.nonzero(self._trainable() & (self.times >= oldest)).flatten()
        return TrainingEvents(self.items, self.times, recent.cpu(), torch.ones(len(recent), dtype=torch.int64), self.weights)

    def last_time(self) -> int:
        """The time of the last training event."""
        return int(self.times[self._trainable()].max())

    def _trainable(self) -> Tensor:
        return _covered(self.start, self.start + self.count, len(self.items)).to(self.items.device)


def _covered(begin: Int[Tensor, " r"], past: Int[Tensor, " r"], size: int) -> Bool[Tensor, " s"]:
    """Which of so many places lie in any of some ranges."""
    # +1 where a range begins, -1 where it ends: the running sum is the mask.
    marks, ones = torch.zeros(size + 1, dtype=torch.int32), torch.ones(len(begin), dtype=torch.int32)
    return marks.index_add_(0, begin, ones).index_add_(0, past, -ones).cumsum(0)[:-1] > 0


@dataclass(frozen=True)
class Slots:
    """Where windows stand that go on from one step to the next: each in a slot whose state is carried."""

    number: Int[Tensor, " B"]
    fresh: Bool[Tensor, " B"]
    """The window begins its session: what the slot knows is of another one."""
    last: Bool[Tensor, " B"]
    """It is the step's last window of its slot: the next step goes on from it."""
    count: int
    """Of all slots."""

    def to(self, device: torch.device) -> "Slots":
        """The same on a device."""
        return Slots(self.number.to(device), self.fresh.to(device), self.last.to(device), self.count)

    def some(self, windows: Int[Tensor, " b"]) -> "Slots":
        """Those of some windows."""
        return Slots(self.number[windows], self.fresh[windows], self.last[windows], self.count)


@dataclass(frozen=True)
class Windows:
    """Inputs [start, end) of B windows in the event arrays.

    The target of a position is one of the `horizon` events that follow it, none of them behind `last`.
    """

    start: Int[Tensor, " B"]
    end: Int[Tensor, " B"]
    last: Int[Tensor, " B"]
    horizon: int = 1
    slots: Slots | None = None
    """None: every window is read from nothing."""

    def to(self, device: torch.device) -> "Windows":
        """The same on a device."""
        slots = None if self.slots is None else self.slots.to(device)
        return Windows(self.start.to(device), self.end.to(device), self.last.to(device), self.horizon, slots)

    @property
    def longest(self) -> int:
        """Events of the longest window."""
        return int((self.end - self.start).max())

    def own(self, world: World) -> Int[Tensor, " b"]:
        """The numbers, one after the other, of those that a process encodes; a slot stays with its process."""
        every = torch.arange(len(self.start), device=self.start.device)
        if self.slots is None:
            return every[world.share(len(every))]
        mine = world.share(self.slots.count)
        return every[(self.slots.number >= mine.start) & (self.slots.number < mine.stop)]

    def some(self, windows: Int[Tensor, " b"]) -> "Windows":
        """Some of them, by number."""
        slots = None if self.slots is None else self.slots.some(windows)
        return Windows(self.start[windows], self.end[windows], self.last[windows], self.horizon, slots)


class AbstractExamples(abc.ABC):
    """batch(step) -> Windows, the same for the same seed and step.

    `steps` are those of the whole training, of which `horizon_from` is a share.
    """

    @property
    @abc.abstractmethod
    def least_history(self) -> int | None:
        """Every position of a window with so many events is an example; None: only its end is."""

    def __init__(self, events: TrainingEvents, length: int, settings: ExampleSettings, seed: int, steps: int = 0) -> None:
        self.events, self.length, self.settings, self.seed = events, length, settings, seed
        self._first_far_step = round(settings.horizon_from * steps)
        self.batch_size = settings.batch_size
        self.n_targets = events.n_targets()
        self.users = torch.nonzero(self.n_targets > 0).flatten()
        if events.later is not None:
            start = events.start[self.users]
            self.users = self.users[events.later.cpu()[start] < start + events.count[self.users]]
        if len(self.users) == 0:
            raise DataContractError(
                "no user has two training events",
                where="dataset",
                expected="a history and a target",
                remedy="lower the filters or use more data",
            )

    @property
    def most_processes(self) -> int:
        """How many can share a step so that each has a part of it."""
        return self.batch_size

    @abc.abstractmethod
    def batch(self, step: int) -> Windows:
        """The windows of a step."""

    def _horizon(self, step: int) -> int:
        """How many events the target of a position may be away."""
        return self.settings.horizon if step >= self._first_far_step else 1

    def _generator(self, *parts: int | str) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self.seed, *parts))


class Prefixes(AbstractExamples):
    """Every position of a window with enough history is an example.

    A user with n training events has ceil((n-1)/L) windows an epoch. Each starts anywhere, with the first and the
    last events as likely as those in the middle; a user with fewer than L+1 events has one window, the whole. Where
    only the newest m events are targets, there are ceil(m/L) windows among the last m+1 events, or the last L+1.
    """

    @property
    def least_history(self) -> int | None:
        return min(self.settings.least_history, self.length)

    def __init__(self, events: TrainingEvents, length: int, settings: ExampleSettings, seed: int, steps: int = 0) -> None:
        super().__init__(events, length, settings, seed, steps)
        windows = (self.n_targets[self.users] + length - 1) // length
        self.owners = torch.repeat_interleave(self.users, windows)
        self._order = lru_cache(maxsize=2)(self._draw_order)

    def batch(self, step: int) -> Windows:
        owners = self.owners[self._positions(step)]
        targets = self.events.count[owners] - 1
        room = (targets - self.length).clamp(min=0)
        oldest = torch.minimum(targets - self.n_targets[owners], room)
        half, places = self.length // 2, room - oldest
        draw = torch.rand(len(owners), generator=self._generator("starts", step), dtype=torch.float64)
        offset = oldest + ((draw * (places + 1 + 2 * half)).long() - half).clamp(min=0).minimum(places)
        start = self.events.start[owners] + offset
        return Windows(start, start + targets.clamp(max=self.length), self.events.start[owners] + targets, self._horizon(step))

    def _positions(self, step: int) -> Tensor:
        first, total = step * self.batch_size, len(self.owners)
        ranks = torch.arange(first, first + self.batch_size)
        epochs = torch.unique(ranks // total).tolist()
        return torch.cat([self._order(epoch)[ranks[ranks // total == epoch] % total] for epoch in epochs])

    def _draw_order(self, epoch: int) -> Tensor:
        """All windows once: at random, but windows of like length side by side, so that little of a batch is padding.

        Windows are sorted by length inside random pools of many batches, and whole batches are shuffled again.
        """
        generator, total = self._generator("order", epoch), len(self.owners)
        shuffled = torch.randperm(total, generator=generator)
        lengths = (self.events.count[self.owners[shuffled]] - 1).clamp(max=self.length)
        pool = torch.arange(total) // (self.batch_size * _POOLED_BATCHES)
        alike = shuffled[torch.argsort(pool * (self.length + 1) + lengths, stable=True)]
        whole = total // self.batch_size
        batches = alike[: whole * self.batch_size].view(whole, self.batch_size)[torch.randperm(whole, generator=generator)]
        return torch.cat([batches.flatten(), alike[whole * self.batch_size :]])


class RandomCut(AbstractExamples):
    """Users uniformly with replacement, one random cut each (ComiRec's data iterator).

    The cut leaves at least four events before it where the user has them.
    """

    least_history = None
    _least = 4

    def batch(self, step: int) -> Windows:
        generator = self._generator("cuts", step)
        owners = self.users[torch.randint(len(self.users), (self.batch_size,), generator=generator)]
        last = self.events.count[owners] - 1
        least = last.clamp(max=self._least)
        draw = torch.rand(self.batch_size, generator=generator, dtype=torch.float64)
        end = self.events.start[owners] + least + (draw * (last - least + 1)).long()
        return Windows(
            torch.maximum(self.events.start[owners], end - self.length),
            end,
            self.events.start[owners] + last,
            self._horizon(step),
        )
