"""What list builders know besides the pools; each builder names the parts it needs, and only those are made."""

from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from retrieval.core.errors import UsageError
from retrieval.index.pools import Seen

Need = Literal["labels", "vectors", "histories", "interests"]
PartT = TypeVar("PartT")


@dataclass(frozen=True)
class Labels:
    """All categories of every item: codes[offsets[i]:offsets[i + 1]], each once. `count` is one more than the largest code."""

    offsets: Int64[np.ndarray, "n_plus_1"]
    codes: Int32[np.ndarray, "e"]
    count: int


@dataclass(frozen=True)
class SearchedInterests:
    """The interests of a batch, as they were searched."""

    vectors: Float32[np.ndarray, "b k d"]
    valid: Bool[np.ndarray, "b k"]


@dataclass(frozen=True)
class ListContext:
    """Facts about items, and about the users whose pools these are (row u of both is one user); None: not made.

    categories: int32[N], the primary category, -1 for none. vectors: float32[N, D], may be memory-mapped. histories:
    what the users had before, at any length.
    """

    categories: Int32[np.ndarray, "n"]
    labels: Labels | None = None
    vectors: Float32[np.ndarray, "n d"] | None = None
    histories: Seen | None = None
    interests: SearchedInterests | None = None


def needed(part: PartT | None, name: Need) -> PartT:
    """The part of a context that a builder cannot do without. Raises UsageError when it was not made."""
    if part is None:
        raise UsageError(f"the list builder needs {name}", where="recall.diversity", remedy=f"give its context the {name}")
    return part
