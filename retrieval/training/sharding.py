"""The item table row by row over several processes: each holds a contiguous share of the rows, and their optimizer state.

Every process plans the whole of a step, so all of them know which rows each of them reads: the events of its own
windows, their positives, and the negatives of all. One all-to-all brings every process just those, R_p distinct rows, from
who holds them; they are bits of the table, so that everything computed from them is what a whole table would give. The
gradients are added up over the processes as they are with a whole table in each (`World.add_rows`), and each process
moves the rows that it holds. So after any number of steps the weights are those of replicas, bit for bit.

What a process gets and sends in a step, P processes, D numbers of 4 bytes a row: R_p * D * 4 * (P-1)/P bytes of rows, which
replicas do not need, and about 2 * R * D * 4 * (P-1)/P of gradients, which they need as well; R is of the rows that any
process reads. With 128 windows of 50 events and 512 negatives over a large catalog, D = 64 and two processes, R_p is at
most 3,776 and R 7,040: 0.5 MB and 1.8 MB. Nothing of it grows with the catalog.

Why none of what torch has for it: FSDP2 (`fully_shard`) keeps parameters in shards and gathers them for every forward pass,
N * D * 4 * (P-1)/P bytes, 128 MB a step at a million items, beside the whole table in memory while it computes. DTensor's
row-wise embedding gathers nothing, but its inputs have to be the same in all processes (it splits a model and not a
batch); what travels is the vector of every place where a row is read, not of every row; and the gradient is dense over the
shard, [N/P, D], with a sweep of optimizer state of that shape at each step. Neither draws or saves a table without holding
it whole, or restarts it with another number of processes from one plain file.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from jaxtyping import Int
from torch import Tensor

from retrieval.core.errors import UsageError
from retrieval.models.item_tower import FetchedRows, ItemTower
from retrieval.training.distributed import World
from retrieval.training.optimizer import has_row_wise_table
from retrieval.training.settings import TrainSettings


def held_rows(settings: TrainSettings, n_items: int, world: World) -> slice | None:
    """The rows of the item table that this process holds; None: all of them, as every other one does.

    Raises:
        UsageError: the table is to be sharded, and its gradient is one of all rows.
    """
    if settings.sharding == "replicated" or world.size == 1:
        return None
    if not has_row_wise_table(settings, n_items):
        raise UsageError(
            f"train.sharding = 'rows' needs a row-wise item table, and for {n_items:,} items train.optimizer.item_table = 'auto' is dense",
            where="train",
            remedy="set train.optimizer.item_table = 'row-wise', or train.sharding = 'replicated'",
        )
    return world.share(n_items)


class RowExchange:
    """Brings rows of a sharded item table to the processes that read them; all of them take part."""

    def __init__(self, items: ItemTower, world: World) -> None:
        self.items, self.world = items, world

    def readable(self, needed: Sequence[Int[Tensor, "..."]]) -> AbstractContextManager[None]:
        """Inside it the tower has the rows that this process needs; `needed` is what each process needs, the same in all of them."""
        return self._fetched(needed) if self.items.sharded else nullcontext()

    @contextmanager
    def _fetched(self, needed: Sequence[Int[Tensor, "..."]]) -> Iterator[None]:
        held = self.items.held
        own = torch.unique(needed[self.world.rank])
        asked = [torch.unique(rows[(rows >= held.start) & (rows < held.stop)]) for rows in needed]
        vectors = self.items.embedding.weight.detach()[torch.cat(asked) - held.start]
        found = self.world.swapped(vectors, [len(rows) for rows in asked], self._counts(own))
        self.items.fetched = FetchedRows(own, found)
        try:
            yield
        finally:
            self.items.fetched = None

    def _counts(self, rows: Int[Tensor, " R"]) -> list[int]:
        """How many of some rows in rising order lie in each process."""
        bounds = torch.tensor([0, *(share.stop for share in self.world.shares(self.items.n_items))], device=rows.device)
        counts: list[int] = torch.diff(torch.searchsorted(rows, bounds)).tolist()
        return counts
