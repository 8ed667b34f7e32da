"""Session-parallel mini-batches (Hidasi et al., ICLR 2016, section 3.1.1)."""

from functools import lru_cache

import torch
from jaxtyping import Int
from torch import Tensor

from retrieval.training.examples import AbstractExamples, Slots, TrainingEvents, Windows
from retrieval.training.settings import ExampleSettings


class SessionParallel(AbstractExamples):
    """`batch_size` slots read whole sessions; a step feeds the next `unroll` events of each slot and predicts what follows each.

    A session here is the training events of a user. A slot whose session ends takes another one, at any event of a
    step, and starts it from a state of zeros; otherwise the state is carried from step to step, without its gradient.

    An epoch lays all sessions end to end in random order and cuts this row into one equal piece a slot. So a step is
    found without playing the epoch through, and every slot is busy to the end; the authors' code hands the next
    session to the slot that is free first and drops what is left when sessions run out. The price: a session that a
    cut goes through is begun anew in the slot behind it, one a slot and epoch at most; and fewer events than slots
    are left out of an epoch. Also differs: `unroll` events a step for one, so that gradients reach back beyond the
    event itself and a step is worth its fixed costs; the epoch's order is drawn anew each time.

    Other than windows of `history` events a session may be of any length, and the state that is trained has seen all
    of it; users are served from their last `history` events.
    """

    least_history = 1

    def __init__(self, events: TrainingEvents, length: int, settings: ExampleSettings, seed: int, steps: int = 0) -> None:
        super().__init__(events, length, settings, seed, steps)
        total = int((events.count[self.users] - 1).sum())
        self.slots = min(self.batch_size, total)
        self.piece = total // self.slots
        """Events a slot reads in an epoch."""
        self.unroll = min(settings.unroll, length, self.piece)
        self._epoch = lru_cache(maxsize=2)(self._draw_epoch)

    @property
    def most_processes(self) -> int:
        return self.slots

    def batch(self, step: int) -> Windows:
        epoch, number = divmod(step, -(-self.piece // self.unroll))
        order, behind = self._epoch(epoch)
        moments = torch.arange(number * self.unroll, min((number + 1) * self.unroll, self.piece))
        places = torch.arange(self.slots)[:, None] * self.piece + moments
        sessions = torch.searchsorted(behind, places, right=True)
        users = order[sessions]
        read = places - (behind[sessions] - self.events.count[users] + 1)  # events of the session that lie before
        begins = read == 0
        slot, moment = torch.nonzero(begins | (moments == moments[0]), as_tuple=True)
        first, owners = (self.events.start[users] + read)[slot, moment], users[slot, moment]
        last = self.events.start[owners] + self.events.count[owners] - 1
        slots = self._slots(slot, begins[slot, moment] | (number == 0))
        return Windows(first, first + _until_next(slot, moment, len(moments)), last, self._horizon(step), slots)

    def _slots(self, slot: Int[Tensor, " B"], fresh: Tensor) -> Slots:
        last = torch.ones_like(fresh)
        last[:-1] = slot[1:] != slot[:-1]
        return Slots(slot, fresh, last, self.slots)

    def _draw_epoch(self, epoch: int) -> tuple[Int[Tensor, " S"], Int[Tensor, " S"]]:
        """The sessions in their order, and the place in the row behind each."""
        order = self.users[torch.randperm(len(self.users), generator=self._generator("sessions", epoch))]
        return order, torch.cumsum(self.events.count[order] - 1, dim=0)


def _until_next(slot: Int[Tensor, " B"], moment: Int[Tensor, " B"], moments: int) -> Int[Tensor, " B"]:
    """The lengths of windows that begin at a moment of a slot and end where the next one begins."""
    begin = slot * moments + moment
    return torch.diff(begin, append=(slot[-1:] + 1) * moments)
