"""Reading rows of a large table so that gradients go to these rows alone."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


class RowGradients(NamedTuple):
    """The gradient of a table in its R distinct rows that have one, rows in rising order."""

    rows: Int[Tensor, " R"]
    values: Float[Tensor, "R D"]


class Lookups:
    """What a step reads of a table: every lookup is a leaf of the graph, so no gradient of the table's shape is made."""

    def __init__(self) -> None:
        self._leaves: list[tuple[Tensor, Tensor]] = []

    def read(self, table: Float[Tensor, "R D"], rows: Int[Tensor, "*S"], places: Int[Tensor, "*S"] | None = None) -> Float[Tensor, "*S D"]:
        """The rows of the table, remembered; `places` is where they lie in it, if not at their own numbers."""
        found = rows if places is None else places
        leaf = table.detach().index_select(0, found.flatten()).view(*rows.shape, -1).requires_grad_()
        self._leaves.append((rows, leaf))
        return leaf

    def clear(self) -> None:
        """Forget what was read."""
        self._leaves.clear()

    def gradients(self, table: Float[Tensor, "R D"]) -> RowGradients:
        """The gradients of the table that came back since `clear`, summed over the places where a row was read; of no row where none did.

        The order of the sum is that of the lookups, so it has the same bits each time. A row whose gradient is zero,
        such as that of padding, counts as not read.
        """
        used = [(rows.flatten(), leaf.grad.flatten(0, -2)) for rows, leaf in self._leaves if leaf.grad is not None]
        if not used:
            return RowGradients(torch.empty(0, dtype=torch.int64, device=table.device), table.new_empty(0, table.shape[1]))
        ordered, order = torch.sort(torch.cat([rows for rows, _ in used]), stable=True)
        rows, counts = torch.unique_consecutive(ordered, return_counts=True)
        # A bag's sum takes its rows in order; adding by index would have no fixed order on a GPU.
        values = functional.embedding_bag(order, torch.cat([grad for _, grad in used]), counts.cumsum(0) - counts, mode="sum")
        touched = values.ne(0).any(dim=1)
        return RowGradients(rows[touched], values[touched])


def look_up(
    table: Float[Tensor, "R D"], rows: Int[Tensor, "*S"], lookups: Lookups | None, places: Int[Tensor, "*S"] | None = None
) -> Float[Tensor, "*S D"]:
    """Rows of a table, remembered where there are `lookups` and gradients are wanted; `places` as in `Lookups.read`."""
    if lookups is not None and torch.is_grad_enabled():
        return lookups.read(table, rows, places)
    return functional.embedding(rows if places is None else places, table)
