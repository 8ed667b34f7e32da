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
    """What the positives are compared with: drawn negatives, or the whole catalog when `log_q` is None."""

    vectors: Float[Tensor, "M D"]
    rows: Int[Tensor, " M"] | None = None
    log_q: Float[Tensor, " M"] | None = None
    positive_log_q: Float[Tensor, " P"] | None = None
    known: KnownItems | None = None
    """Items that do not compete either, where they are to be left out."""


class AbstractLoss(abc.ABC):
    """Vectors in, scalar out; never sees a model, a sampler or a table of weights."""

    @abc.abstractmethod
    def __call__(self, examples: Examples, competitors: Competitors, compute: torch.dtype) -> Float[Tensor, ""]:
        """The loss of a batch; `compute` is the dtype of the matrix products."""
