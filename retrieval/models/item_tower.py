"""The item side: rows of the catalog -> vectors."""

from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional


class RowGradients(NamedTuple):
    """The gradient of a table in its R distinct rows that have one, rows in rising order."""

    rows: Int[Tensor, " R"]
    values: Float[Tensor, "R D"]


class Lookups:
    """What a step reads of a table: every lookup is a leaf of the graph, so no gradient of the table's shape is made."""

    def __init__(self) -> None:
        self._leaves: list[tuple[Tensor, Tensor]] = []

    def read(self, table: Float[Tensor, "N D"], rows: Int[Tensor, "*S"]) -> Float[Tensor, "*S D"]:
        """The rows of the table, remembered."""
        leaf = table.detach().index_select(0, rows.flatten()).view(*rows.shape, -1).requires_grad_()
        self._leaves.append((rows, leaf))
        return leaf

    def clear(self) -> None:
        """Forget what was read."""
        self._leaves.clear()

    def gradients(self) -> RowGradients:
        """The gradients that came back since `clear`, summed over the places where a row was read.

        The order of the sum is that of the lookups, so it has the same bits each time. A row whose gradient is zero,
        such as that of padding, counts as not read.
        """
        used = [(rows.flatten(), leaf.grad.flatten(0, -2)) for rows, leaf in self._leaves if leaf.grad is not None]
        ordered, order = torch.sort(torch.cat([rows for rows, _ in used]), stable=True)
        rows, counts = torch.unique_consecutive(ordered, return_counts=True)
        # A bag's sum takes its rows in order; adding by index would have no fixed order on a GPU.
        values = functional.embedding_bag(order, torch.cat([grad for _, grad in used]), counts.cumsum(0) - counts, mode="sum")
        touched = values.ne(0).any(dim=1)
        return RowGradients(rows[touched], values[touched])


class ItemTower(nn.Module):
    """One embedding a catalog row, for histories and targets alike."""

    per_item: ClassVar = frozenset({"embedding.weight"})
    """The names in the state that have one row an item."""

    def __init__(self, n_items: int, dimension: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_items, dimension)
        nn.init.normal_(self.embedding.weight, std=dimension**-0.5)
        self.lookups: Lookups | None = None

    @property
    def n_items(self) -> int:
        """N."""
        return self.embedding.num_embeddings

    def read_row_wise(self) -> Lookups:
        """From now on gradients go to the rows that are read, and the table itself has none; returns where they arrive."""
        self.embedding.weight.requires_grad_(False)
        self.lookups = Lookups()
        return self.lookups

    def forward(self, rows: Int[Tensor, "*S"]) -> Float[Tensor, "*S D"]:
        """The vectors of some catalog rows."""
        if self.lookups is not None and torch.is_grad_enabled():
            return self.lookups.read(self.embedding.weight, rows)
        vectors: Tensor = self.embedding(rows)
        return vectors

    def all_items(self) -> Float[Tensor, "N D"]:
        """The vectors of the whole catalog, in row order; without a gradient where rows are read one by one."""
        return self.embedding.weight
