"""What a re-scorer is trained on: positions in histories, what was recalled for them, and what came true."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from retrieval.core.errors import DataContractError
from retrieval.core.seeds import derive_seed

_AT_ONCE = 1_024


@dataclass(frozen=True)
class Recalled:
    """P recalled candidates at each of R positions.

    The history of a position is [start, end) of the event arrays; `rows` are -1 and `scores` 0 past the last candidate.
    """

    start: Int[Tensor, " R"]
    end: Int[Tensor, " R"]
    rows: Int[Tensor, "R P"]
    scores: Float[Tensor, "R P"]
    """Standardised in the position's own pool."""
    positive: Bool[Tensor, "R P"]
    """What the user went on to do."""
    wanted: Int[Tensor, " R"]
    """How many items that was, recalled or not."""

    def some(self, chosen: Tensor) -> "Recalled":
        """Some of the positions."""
        return Recalled(*(getattr(self, field.name)[chosen] for field in fields(self)))

    def answerable(self) -> Int[Tensor, " a"]:
        """The positions with a positive and a negative candidate: of what was not recalled no order can be learned."""
        count = self.positive.sum(dim=1)
        return torch.nonzero((count > 0) & (count < (self.rows >= 0).sum(dim=1))).flatten()

    def occurrences(self, items: Int[Tensor, " E"], length: int, n_items: int) -> Int[Tensor, " N"]:
        """How often each item stands in these histories and pools."""
        history, valid = windows(items, self.start, self.end, length)
        return torch.bincount(history[valid], minlength=n_items) + torch.bincount(self.rows[self.rows >= 0], minlength=n_items)


@dataclass(frozen=True)
class Groups:
    """One positive and some negatives at each of B positions: candidate 0 is the positive."""

    start: Int[Tensor, " B"]
    end: Int[Tensor, " B"]
    rows: Int[Tensor, "B C"]
    present: Bool[Tensor, "B C"]
    scores: Float[Tensor, "B C"]


class RescoreExamples:
    """batch(step) -> Groups, a function of (seed, step): every position once an epoch, with a positive and negatives drawn anew.

    Raises:
        DataContractError: at no position was anything recalled that came true.
    """

    least_history = None

    def __init__(self, recalled: Recalled, batch_size: int, negatives: int, seed: int) -> None:
        # Places and not copies: candidates are what takes the memory.
        self.recalled, self.answerable, self.negatives, self.seed = recalled, recalled.answerable(), negatives, seed
        self.batch_size = self.most_processes = batch_size
        if len(self.answerable) == 0:
            raise DataContractError(
                "recall finds nothing of what follows at any position",
                where="rescore",
                expected="positions with a positive",
                remedy="raise rescore.horizon, recall.pool or rescore.examples",
            )

    def batch(self, step: int) -> Groups:
        """The groups of a step."""
        chosen = self.recalled.some(self.answerable[self._positions(step)])
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "rescore groups", step))
        # The largest of random keys among those that are wanted: one positive, and negatives without repeats.
        keys = torch.rand(chosen.rows.shape, generator=generator)
        positive = keys.masked_fill(~chosen.positive, -1.0).argmax(dim=1, keepdim=True)
        others = keys.masked_fill(chosen.positive | (chosen.rows < 0), -1.0)
        best, places = others.topk(min(self.negatives, others.shape[1]), dim=1)
        places, present = torch.cat([positive, places], dim=1), torch.cat([torch.ones_like(positive, dtype=torch.bool), best >= 0], dim=1)
        rows, scores = chosen.rows.gather(1, places), chosen.scores.gather(1, places)
        return Groups(chosen.start, chosen.end, rows.clamp(min=0), present, scores)

    def occurrences(self, items: Int[Tensor, " E"], length: int, n_items: int) -> Int[Tensor, " N"]:
        """How often each item stands in the histories and pools of the answerable positions, some of them at a time."""
        found = torch.zeros(n_items, dtype=torch.int64)
        for first in range(0, len(self.answerable), _AT_ONCE):
            found += self.recalled.some(self.answerable[first : first + _AT_ONCE]).occurrences(items, length, n_items)
        return found

    def _positions(self, step: int) -> Int[Tensor, " B"]:
        first, total = step * self.batch_size, len(self.answerable)
        ranks = torch.arange(first, first + self.batch_size)
        epochs = torch.unique(ranks // total).tolist()
        return torch.cat([self._order(epoch)[ranks[ranks // total == epoch] % total] for epoch in epochs])

    def _order(self, epoch: int) -> Int[Tensor, " R"]:
        return torch.randperm(len(self.answerable), generator=torch.Generator().manual_seed(derive_seed(self.seed, "rescore order", epoch)))


def windows(
    items: Int[Tensor, " E"], start: Int[Tensor, " B"], end: Int[Tensor, " B"], length: int
) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
    """The newest `length` events of some positions, oldest first and left-aligned, and which of them there are."""
    if len(items) == 0:
        return torch.zeros(len(start), 1, dtype=torch.int64), torch.zeros(len(start), 1, dtype=torch.bool)
    start = torch.maximum(start, end - length)
    positions = start[:, None] + torch.arange(max(1, min(length, int((end - start).max()) if len(end) else 1)))
    valid = positions < end[:, None]
    return items[positions.clamp(max=len(items) - 1)].to(torch.int64) * valid, valid
