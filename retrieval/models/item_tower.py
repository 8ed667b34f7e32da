"""The item side: rows of the catalog -> vectors."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from retrieval.models.fields.items import ItemFields
from retrieval.models.lookups import Lookups, look_up
from retrieval.models.remade import in_blocks

_DRAWN = 1 << 20
"""Numbers of a table that are drawn at a time; a multiple of sixteen."""
_ROWS = 1 << 16
"""Items whose fields are read at a time where all are asked for."""
_REMADE = 1 << 13
"""Items of a larger step whose fields are read at a time, and again for the gradient: it holds vectors then, and no fields of them."""


class FetchedRows:
    """Some rows of a table that this process does not hold: R distinct ones in rising order, and their vectors."""

    def __init__(self, rows: Int[Tensor, " R"], vectors: Float[Tensor, "R D"]) -> None:
        self.rows, self.vectors = rows, vectors

    def places(self, rows: Int[Tensor, "*S"]) -> Int[Tensor, "*S"]:
        """Where the vectors of some rows lie.

        Raises:
            LookupError: one of them was not fetched.
        """
        places = torch.searchsorted(self.rows, rows).clamp(max=max(0, len(self.rows) - 1))
        if rows.numel() and not (len(self.rows) and torch.equal(self.rows[places], rows)):
            raise LookupError("a row of the item table is read that was not fetched for this step")
        return places


class AllRows(NamedTuple):
    """The vectors of all rows, each at its own place."""

    vectors: Float[Tensor, "N D"]

    def places(self, rows: Int[Tensor, "*S"]) -> Int[Tensor, "*S"]:
        """The rows themselves."""
        return rows


class ItemTower(nn.Module):
    """One embedding a catalog row, for histories and targets alike.

    With fields an item's vector is made of its id's row and of its fields (`ItemFields`); what a step reads more than once is
    then made once (`once`).

    A sharded tower holds the rows `held` alone, with the weights that they have in a whole one; what it reads, its own rows
    included, is what somebody has put into `fetched`.
    """

    per_item: ClassVar = frozenset({"embedding.weight"})
    """The names in the state that have one row an item."""

    def __init__(self, n_items: int, dimension: int, held: slice | None = None) -> None:
        super().__init__()
        self.n_items, self.sharded = n_items, held is not None
        self.held = slice(0, n_items) if held is None else held
        """The rows that lie here."""
        self.embedding = nn.Embedding(self.held.stop - self.held.start, dimension, _weight=_drawn(n_items, dimension, self.held))
        self.lookups: Lookups | None = None
        self.fetched: FetchedRows | None = None
        self.fields: ItemFields | None = None
        self._made: FetchedRows | AllRows | None = None

    def with_fields(self, fields: ItemFields) -> "ItemTower":
        """The same tower, which from now on reads the items' fields, too."""
        self.fields = fields
        return self

    def read_row_wise(self) -> Lookups:
        """From now on gradients go to the rows that are read, and the table itself has none; returns where they arrive."""
        self.embedding.weight.requires_grad_(False)
        self.lookups = Lookups()
        return self.lookups

    def forward(self, rows: Int[Tensor, "*S"]) -> Float[Tensor, "*S D"]:
        """The vectors of some catalog rows.

        Raises:
            LookupError: a row lies elsewhere and was not fetched.
        """
        if self.fields is None:
            return self.ids(rows)
        made = self._made or self._make([rows])
        return functional.embedding(made.places(rows), made.vectors)

    @contextmanager
    def once(self, rows: Sequence[Int[Tensor, "..."]]) -> Iterator[None]:
        """Inside it the vectors of these rows are made one time, however often they are read; ids without fields are read as ever."""
        if self.fields is None:
            yield
            return
        self._made = self._make(rows)
        try:
            yield
        finally:
            self._made = None

    def _make(self, rows: Sequence[Int[Tensor, "..."]]) -> "FetchedRows | AllRows":
        """The vectors of the distinct rows, or of all where they are no more: sorting then costs more than it saves."""
        assert self.fields is not None  # noqa: S101 - the callers have looked
        if not self.sharded and sum(each.numel() for each in rows) >= self.n_items:
            every = torch.arange(self.n_items, device=rows[0].device)
            return AllRows(self._with_fields(every))
        distinct = torch.unique(torch.cat([each.flatten() for each in rows]))
        return FetchedRows(distinct, self._with_fields(distinct))

    def _with_fields(self, rows: Int[Tensor, " R"]) -> Float[Tensor, "R D"]:
        assert self.fields is not None  # noqa: S101 - the callers have looked
        ids = self.ids(rows)
        return self.fields(ids, rows) if len(rows) <= _ROWS else in_blocks(self.fields, ids, rows, _REMADE)

    def ids(self, rows: Int[Tensor, "*S"]) -> Float[Tensor, "*S D"]:
        """Rows of the table of ids. Raises as `forward`."""
        table, places = self._table(rows)
        return look_up(table, rows, self.lookups, places)

    def all_items(self) -> Float[Tensor, "N D"]:
        """The vectors of the whole catalog, in row order; without a gradient where rows are read one by one.

        Raises:
            LookupError: this tower holds a part of it.
        """
        if self.sharded:
            raise LookupError(f"the item table is sharded: rows {self.held.start} to {self.held.stop} of {self.n_items} lie here")
        return self.held_items()

    def held_items(self) -> Float[Tensor, "H D"]:
        """The vectors of the rows that lie here, in row order."""
        table = self.embedding.weight
        if self.fields is None or len(table) == 0:
            return table
        blocks = torch.split(torch.arange(self.held.start, self.held.stop, device=table.device), _ROWS)
        return torch.cat([self.fields(table[rows - self.held.start], rows) for rows in blocks])

    def _table(self, rows: Int[Tensor, "*S"]) -> tuple[Float[Tensor, "R D"], Int[Tensor, "*S"]]:
        """Where to read some rows, and at which places."""
        if not self.sharded:
            return self.embedding.weight, rows
        if self.fetched is None:
            raise LookupError("the item table is sharded, and no row of it was fetched")
        return self.fetched.vectors, self.fetched.places(rows)


def _drawn(n_items: int, dimension: int, held: slice) -> Float[Tensor, "H D"]:
    """Rows of the table that `nn.Embedding` and then `init.normal_` draw; only a block of all others is ever held.

    Bit for bit: torch draws normal numbers by sixteen, and where they do not come out even the last sixteen anew, so any
    blocks of a multiple of sixteen are those of one draw, if the last one has sixteen numbers at least.
    """
    table = torch.empty(held.stop - held.start, dimension)
    first, past = held.start * dimension, held.stop * dimension
    for deviation in (1.0, dimension**-0.5):
        for start, stop in _blocks(n_items * dimension):
            drawn = torch.empty(stop - start).normal_(0.0, deviation)
            low, high = max(start, first), min(stop, past)
            if low < high:
                table.view(-1)[low - first : high - first] = drawn[low - start : high - start]
    return table


def _blocks(total: int) -> list[tuple[int, int]]:
    starts = list(range(0, max(1, total - 15), _DRAWN))
    return list(zip(starts, [*starts[1:], total], strict=True))
