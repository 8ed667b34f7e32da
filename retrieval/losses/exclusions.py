"""Which classes are no competitors of an example, told block by block so that no [P,M] mask is ever held."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

NOTHING = -1
"""Stands where a window has no event."""

Side = Literal["past", "future", "window"]
"""Of a window, as an example sees it: what it knows already, what comes later in the window, or both."""


@dataclass(frozen=True)
class KnownItems:
    """What is known to interest the user of an example: the items of windows, which window is whose, and how far it has come."""

    rows: Int[Tensor, "B L"]
    """`NOTHING` where there is no event."""
    owner: Int[Tensor, " P"]
    """The window of each example."""
    seen: Int[Tensor, " P"]
    """How many events of its window each example knows."""
    side: Side = "window"


class Exclusions:
    """Accidental hits, and on request what else occurs in the window of the positive.

    Args:
        rows: the item of every class, int64 [M].
        positive_rows: the item of every example, int64 [P].
        known: items that are no competitors either.
    """

    def __init__(self, rows: Int[Tensor, " M"], positive_rows: Int[Tensor, " P"], known: KnownItems | None = None) -> None:
        self.rows, self.positive_rows, self.known = rows, positive_rows, known
        if known is not None:
            # Stable, so that the places of an item stay in order.
            self._sorted, self._places = known.rows.sort(dim=1, stable=True)

    def __call__(self, examples: slice, classes: slice) -> Bool[Tensor, "p m"]:
        """True where a class of the block does not compete with an example of the block."""
        rows = self.rows[classes]
        hits = torch.eq(self.positive_rows[examples, None], rows)
        return hits if self.known is None else hits.logical_or_(self._occur(self.known, examples, rows))

    def _occur(self, known: KnownItems, examples: slice, rows: Int[Tensor, " m"]) -> Bool[Tensor, "p m"]:
        users, mine = torch.unique(known.owner[examples], return_inverse=True)
        seen = known.seen[examples, None]
        if known.side == "past":
            return torch.lt(self._first(users, rows)[mine], seen)
        if known.side == "future":
            return torch.ge(self._last(users, rows)[mine], seen)
        return torch.lt(self._first(users, rows), known.rows.shape[1])[mine]

    def _first(self, users: Int[Tensor, " u"], rows: Int[Tensor, " m"]) -> Int[Tensor, "u m"]:
        """Where in its window a user has an item first; L where nowhere."""
        window, wanted = self._sorted[users], rows.expand(len(users), -1).contiguous()
        places = torch.searchsorted(window, wanted).clamp(max=window.shape[1] - 1)
        return self._places[users].gather(1, places).masked_fill_(window.gather(1, places) != wanted, window.shape[1])

    def _last(self, users: Int[Tensor, " u"], rows: Int[Tensor, " m"]) -> Int[Tensor, "u m"]:
        """Where in its window a user has an item last; -1 where nowhere."""
        window, wanted = self._sorted[users], rows.expand(len(users), -1).contiguous()
        places = (torch.searchsorted(window, wanted, right=True) - 1).clamp(min=0)
        return self._places[users].gather(1, places).masked_fill_(window.gather(1, places) != wanted, -1)


class CatalogExclusions:
    """The same where the classes are the whole catalog, an item its own class: what is known is marked, and nothing looked up."""

    def __init__(self, positive_rows: Int[Tensor, " P"], known: KnownItems) -> None:
        self.positive_rows, self.known = positive_rows, known

    def __call__(self, examples: slice, classes: slice) -> Bool[Tensor, "p m"]:
        """True where an item of the block does not compete with an example of the block."""
        rows = torch.cat([self._known(examples), self.positive_rows[examples, None]], dim=1)
        count = classes.stop - classes.start
        outside = (rows < classes.start) | (rows >= classes.stop)
        # One column more takes the marks of what lies outside the block.
        marks = torch.zeros(len(rows), count + 1, dtype=torch.bool, device=rows.device)
        return marks.scatter_(1, (rows - classes.start).masked_fill_(outside, count), True)[:, :count]

    def _known(self, examples: slice) -> Int[Tensor, "p L"]:
        """The items that are left out for some examples, `NOTHING` where a place of the window is none of them."""
        rows, seen = self.known.rows[self.known.owner[examples]], self.known.seen[examples, None]
        if self.known.side == "window":
            return rows
        places = torch.arange(rows.shape[1], device=rows.device)
        return rows.masked_fill_(places >= seen if self.known.side == "past" else places < seen, NOTHING)
