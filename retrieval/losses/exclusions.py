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
            self._sorted, places = known.rows.sort(dim=1, stable=True)
            # Compared for every score: narrow numbers are half of the time.
            self._places = places.to(torch.int16 if known.rows.shape[1] < torch.iinfo(torch.int16).max else torch.int32)
            self._seen = known.seen.to(self._places.dtype)

    def __call__(self, examples: slice, classes: slice) -> Bool[Tensor, "p m"]:
        """True where a class of the block does not compete with an example of the block."""
        rows = self.rows[classes]
        hits = torch.eq(self.positive_rows[examples, None], rows)
        return hits if self.known is None else hits.logical_or_(self._occur(self.known, examples, rows))

    def _occur(self, known: KnownItems, examples: slice, rows: Int[Tensor, " m"]) -> Bool[Tensor, "p m"]:
        users, mine = torch.unique(known.owner[examples], return_inverse=True)
        seen = self._seen[examples, None]
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
