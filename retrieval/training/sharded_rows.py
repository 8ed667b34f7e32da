"""A tensor of one row an item that no process holds whole, and how it comes out of a file and into one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from retrieval.training.distributed import World

CHUNK = 1 << 22
"""Numbers that travel at a time between the leader, which reads and writes files, and who holds them."""

Rows = Callable[[int, int], Tensor]
"""rows(first, past) of a whole tensor, on the CPU."""


@dataclass(frozen=True)
class ShardedRows:
    """A tensor of `total` rows of which each process holds its share, here as `own`.

    Whatever one process does with it (`chunks` or `fill` in the leader, `send` or `fill` in the others), the others have to
    do at the same time.
    """

    own: Tensor
    total: int
    world: World

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole."""
        return (self.total, *self.own.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        return self.own.dtype

    def chunks(self) -> Iterator[Tensor]:
        """For the leader: the whole in order, piece by piece."""
        for rank, part in self._parts():
            yield self.own[part].cpu() if rank == self.world.rank else self.world.receive(self._empty(part), rank)

    def send(self) -> None:
        """For every other process: what the leader takes in `chunks`."""
        for rank, part in self._parts():
            if rank == self.world.rank:
                self.world.send(self.own[part], 0)

    @torch.no_grad()
    def fill(self, rows: Rows | None) -> None:
        """Everybody takes its rows of those that the leader reads."""
        for rank, part in self._parts():
            if rows is not None:
                first = self.world.shares(self.total)[rank].start
                values = rows(first + part.start, first + part.stop)
                self.own[part].copy_(values) if rank == self.world.rank else self.world.send(values, rank)
            elif rank == self.world.rank:
                self.own[part].copy_(self.world.receive(self._empty(part), 0))

    def _parts(self) -> Iterator[tuple[int, slice]]:
        """Whose turn it is, and which of its own rows."""
        together = max(1, CHUNK // max(1, torch.Size(self.shape[1:]).numel()))
        for rank, share in enumerate(self.world.shares(self.total)):
            held = share.stop - share.start
            for start in range(0, held, together):
                yield rank, slice(start, min(held, start + together))

    def _empty(self, part: slice) -> Tensor:
        return torch.empty(part.stop - part.start, *self.own.shape[1:], dtype=self.own.dtype)


Stored = Tensor | ShardedRows
"""What a file holds under a name."""


def as_stored(values: Tensor, n_items: int, world: World, *, sharded: bool) -> Stored:
    """One row an item, as a checkpoint knows it."""
    return ShardedRows(values, n_items, world) if sharded else values
