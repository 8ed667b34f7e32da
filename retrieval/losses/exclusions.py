"""Which sampled classes are no competitors of an example, told block by block so that no [P,M] mask is ever held."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

NOTHING = -1
"""Stands where a window has no event."""


@dataclass(frozen=True)
class KnownItems:
    """What is known to interest the user of an example: the items of windows, and which window is whose."""

    rows: Int[Tensor, "B L"]
    """`NOTHING` where there is no event."""
    owner: Int[Tensor, " P"]
    """The window of each example."""


class Exclusions:
    """Accidental hits, and on request whatever else occurs in the window of the positive.

    Args:
        rows: the item of every class, int64 [M].
        positive_rows: the item of every example, int64 [P].
        known: items that are no competitors either.
    """

    def __init__(self, rows: Int[Tensor, " M"], positive_rows: Int[Tensor, " P"], known: KnownItems | None = None) -> None:
        self.rows, self.positive_rows = rows, positive_rows
        self.owner = None if known is None else known.owner
        self.seen = None if known is None else known.rows.sort(dim=1).values

    def __call__(self, examples: slice, classes: slice) -> Bool[Tensor, "p m"]:
        """True where a class of the block does not compete with an example of the block."""
        rows = self.rows[classes]
        hits = torch.eq(self.positive_rows[examples, None], rows)
        if self.seen is None or self.owner is None:
            return hits
        users, places = torch.unique(self.owner[examples], return_inverse=True)
        return hits.logical_or_(_occur(rows, self.seen[users])[places])


def _occur(rows: Int[Tensor, " m"], seen: Int[Tensor, "u L"]) -> Bool[Tensor, "u m"]:
    """Is an item among the sorted ones of a user?"""
    wanted = rows.expand(len(seen), -1).contiguous()
    places = torch.searchsorted(seen, wanted).clamp(max=seen.shape[1] - 1)
    return torch.eq(seen.gather(1, places), wanted)
