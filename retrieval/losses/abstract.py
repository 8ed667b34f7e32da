"""The contract of every loss, and what it is given."""

import abc
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from retrieval.losses.exclusions import KnownItems
from retrieval.losses.readouts import Queries


@dataclass(frozen=True)
class Examples:
    """P training examples: queries (interests), the positive's row and vector, and a weight that sums to one."""

    queries: Queries
    positive_rows: Int[Tensor, " P"]
    positives: Float[Tensor, "P D"]
    weights: Float[Tensor, " P"]


@dataclass(frozen=True)
class Competitors:
    """What the positives are compared with: sampled negatives, or the whole catalog when `rows` is None."""

    vectors: Float[Tensor, "M D"]
    rows: Int[Tensor, " M"] | None = None
    log_q: Float[Tensor, " M"] | None = None
    """Log probability of one draw giving each of them."""
    positive_log_q: Float[Tensor, " P"] | None = None
    known: KnownItems | None = None
    """Items that do not compete either, where they are to be left out."""
    counts: Float[Tensor, " M"] | None = None
    """How many draws gave each of them; None: one."""
    n_items: int = 0
    """In the catalog."""

    @property
    def draws(self) -> float:
        """M, equal ones included."""
        return float(len(self.vectors) if self.counts is None else self.counts.sum())

    def log_counts(self) -> Float[Tensor, " M"] | None:
        """The logarithm of the number of draws that gave each of them."""
        return None if self.counts is None else self.counts.log()

    def corrected(self) -> Float[Tensor, " M"]:
        """What makes a sum over the competitors one over the catalog: log counts - log Q.

        Raises:
            ValueError: the competitors came without their log Q.
        """
        if self.log_q is None or self.positive_log_q is None:
            raise ValueError("this loss needs the log probabilities of its negatives and positives")
        counts = self.log_counts()
        return -self.log_q if counts is None else counts - self.log_q


class AbstractLoss(abc.ABC):
    """Vectors in, scalar out; never sees a model, a sampler or a table of weights."""

    @abc.abstractmethod
    def __call__(self, examples: Examples, competitors: Competitors, compute: torch.dtype) -> Float[Tensor, ""]:
        """The loss of a batch; `compute` is the dtype of the matrix products."""
