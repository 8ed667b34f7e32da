"""Where a step's negatives come from: drawn, the positives of the batch, both, or those of earlier batches as well.

Whatever they come from, their log Q is that of the true mixture: with B rows of one distribution and M of another,
Q(i) = B/(B+M) q_1(i) + M/(B+M) q_2(i). The correction of one part by its own q alone would count an item that both
parts yield twice.
"""

import abc
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from retrieval.core.seeds import derive_seed
from retrieval.core.tables import Table
from retrieval.sampling.negatives import Negatives, NegativeSampler


class Parts(NamedTuple):
    """What sources are made of.

    `batch` is the distribution of a positive over the items. It is taken to be the share of the training events,
    which is exact where every event is equally likely to be a target; windows leave out a user's first event, and
    one cut a user weighs users and not events.
    """

    batch: NegativeSampler
    drawn: NegativeSampler
    negatives: int
    """Drawn a step."""
    seed: int
    earlier: Callable[[int], Int[Tensor, "..."]] | None = None
    """The positives of an earlier step, a pure function of its number."""
    batches: int = 0
    """Earlier steps in the queue."""


class AbstractSource(abc.ABC):
    """negatives(positives of the batch, step), the same for the same seed, batch and step."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    @abc.abstractmethod
    def __call__(self, positives: Int[Tensor, " P"], step: int) -> Negatives:
        """The rows every example of the batch is compared with, its own positive among them where the batch is a part."""

    def _draw(self, step: int) -> Negatives:
        generator = torch.Generator().manual_seed(derive_seed(self.parts.seed, "negatives", step))
        return self.parts.drawn.draw(self.parts.negatives, generator)


class Drawn(AbstractSource):
    """M rows from a fixed distribution, with replacement."""

    def __call__(self, positives: Int[Tensor, " P"], step: int) -> Negatives:
        return self._draw(step)._replace(positive_log_q=self.parts.drawn.log_q(positives))


class InBatch(AbstractSource):
    """The positives of the batch (Yi et al., RecSys 2019); an example's own is an accidental hit like any other."""

    def __call__(self, positives: Int[Tensor, " P"], step: int) -> Negatives:
        del step
        return _mixture([(positives, self.parts.batch)], positives)


class Mixed(AbstractSource):
    """The positives of the batch and M drawn rows (Yang et al., WWW 2020): popular items and the long tail."""

    def __call__(self, positives: Int[Tensor, " P"], step: int) -> Negatives:
        return _mixture([(positives, self.parts.batch), (self._draw(step).rows, self.parts.drawn)], positives)


class Queue(AbstractSource):
    """The positives of the batch and of the last n (Wang et al., SIGIR 2021, cross-batch negatives).

    Differs from the paper: rows are kept and not vectors, and are embedded with today's table, so none is stale; and
    because batches are a function of their number, the queue is computed and never has to be saved.
    """

    def __call__(self, positives: Int[Tensor, " P"], step: int) -> Negatives:
        if self.parts.earlier is None:
            raise ValueError("a queue needs the positives of earlier steps")
        steps = range(max(0, step - self.parts.batches), step)
        rows = torch.cat([positives, *(self.parts.earlier(number).to(positives.device) for number in steps)])
        return _mixture([(rows, self.parts.batch)], positives)


def _mixture(parts: Sequence[tuple[Tensor, NegativeSampler]], positives: Int[Tensor, " P"]) -> Negatives:
    """All rows of the parts, equal ones counted and embedded once."""
    total = sum(len(rows) for rows, _ in parts)

    def log_q(rows: Int[Tensor, " R"]) -> Float[Tensor, " R"]:
        return torch.stack([sampler.log_q(rows) + math.log(len(part) / total) for part, sampler in parts]).logsumexp(dim=0)

    rows, counts = torch.unique(torch.cat([rows for rows, _ in parts]), return_counts=True)
    return Negatives(rows, log_q(rows), counts.to(torch.float32), log_q(positives))


SOURCES: Table[type[AbstractSource]] = Table("source", {"drawn": Drawn, "in-batch": InBatch, "mixed": Mixed, "queue": Queue})
