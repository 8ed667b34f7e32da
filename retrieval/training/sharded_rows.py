"""A tensor of one row an item that no process holds whole, and how it comes out of a file and into one."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from retrieval.models.item_tower import ItemTower
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
                self._give(rank, part, rows(first + part.start, first + part.stop))
            elif rank == self.world.rank:
                self.own[part].copy_(self.world.receive(self._empty(part), 0))

    def _give(self, rank: int, part: slice, values: Tensor) -> None:
        if rank == self.world.rank:
            self.own[part].copy_(values)
        else:
            self.world.send(values, rank)

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


def stored(tensors: Mapping[str, Tensor], per_item: frozenset[str], items: ItemTower, world: World) -> dict[str, Stored]:
    """Tensors as a checkpoint knows them; `per_item` are the names of those with one row an item, sharded if the tower is."""
    sharded = per_item if items.sharded else frozenset[str]()
    return {name: ShardedRows(value, items.n_items, world) if name in sharded else value for name, value in tensors.items()}
