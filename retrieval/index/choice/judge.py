"""How much of a user's exact list an index finds: the largest score over the interests counts, as lists are made."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from retrieval.core.errors import UsageError
from retrieval.core.seeds import derive_seed
from retrieval.index.abstract import AbstractIndex
from retrieval.index.exact.index import ExactIndex
from retrieval.index.pools import Pools, Seen

UserSearch = Callable[[Float32[np.ndarray, "b k d"], Bool[np.ndarray, "b k"]], Pools]
_ROUNDING = 1e-5
_RESAMPLES = 2000


class MakeSearch(Protocol):
    """How users are searched for in an index over vectors: whatever makes the lists, so that what is judged is what is served."""

    def __call__(
        self, index: AbstractIndex, vectors: Float32[np.ndarray, "n d"], blocked: Bool[np.ndarray, "n"] | None = None
    ) -> UserSearch:
        """A search that gives nobody a blocked item."""


@dataclass(frozen=True)
class Finding:
    """The mean share of their exact list that users get, and what it exceeds in 95 of 100 samples of users."""

    recall: float
    lower: float


class Judge:
    """Users with their exact lists.

    An item is found when its score reaches the exact n-th one (to 1e-5 of the largest): items of equal score are as good as
    each other.

    Args:
        exact: over the vectors.
        interests: float32[U, K, D] of users like those to come.
        valid: bool[U, K]; users without an interest are left out.
        n: length of a list.
        blocked: bool[N], items that no list will hold: finding them is no merit.

    Raises:
        UsageError: no user has an interest, or no item is left.
    """

    def __init__(
        self,
        exact: ExactIndex,
        interests: Float32[np.ndarray, "u k d"],
        valid: Bool[np.ndarray, "u k"],
        n: int,
        blocked: Bool[np.ndarray, "n"] | None = None,
    ) -> None:
        known = valid.any(axis=1)
        if not known.any():
            raise UsageError("no users to measure the index by", where="index", expected="at least one with an interest")
        blocked = np.zeros(exact.count, dtype=bool) if blocked is None else blocked
        if blocked.all():
            raise UsageError("no item to measure the index by", where="index", expected="at least one that lists may hold")
        self.interests, self.valid, self.n = interests[known], valid[known], min(n, int((~blocked).sum()))
        search = exact.search_users(blocked, exact.settings.threads)
        truth = search(self.interests.astype(np.float64), self.valid, Seen.nothing(len(self.interests)), self.n)
        self.rows: Int64[np.ndarray, "u n"] = truth.rows
        self._floor = truth.scores[:, -1:] - _ROUNDING * np.abs(truth.scores).max(axis=1, keepdims=True)

    def shares(self, search: UserSearch) -> Float64[np.ndarray, "u"]:
        """The share of its exact list that each user gets."""
        pools = search(self.interests, self.valid)
        found = (pools.rows >= 0) & (pools.scores >= self._floor)
        shares: Float64[np.ndarray, u] = found[:, : self.n].mean(axis=1)
        return shares

    def finding(self, search: UserSearch) -> Finding:
        """What the users get on the whole."""
        return finding_of(self.shares(search))


def finding_of(shares: Float64[np.ndarray, "u"]) -> Finding:
    """The mean over users and its lower bound, the 5th percentile of seeded resamples of the users (Efron, 1979)."""
    random = np.random.default_rng(derive_seed("index", "bound"))
    means = [shares[random.integers(0, len(shares), len(shares))].mean() for _ in range(_RESAMPLES)]
    return Finding(float(shares.mean()), float(np.quantile(means, 0.05)))
