"""The candidates of users with several interests.

Our own exact index takes the largest score over the interests before it selects: one search a user, nothing to merge.
Any other index is searched for each interest and the hits are merged. The pool is the exact top of the catalog by
(-score, row) whenever the index is exact: every answer carries a bound on what was left out, and the few users whose
bound does not settle their pool (long histories, many equal scores) are searched deeper and at last over every item
that is not blocked. The same inputs give the same bytes whatever the threads and the history lengths of the others, and under an
exact index whatever the batch.
"""

import copy

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from retrieval.core.errors import IntegrityError, UsageError
from retrieval.index.abstract import AbstractIndex, as_vectors, require_finite_scores
from retrieval.index.exact.index import ExactIndex
from retrieval.index.pools import Pools, Seen
from retrieval.index.threads import over_chunks
from retrieval.recall.kernels import merge_users, scan_users

_DEEPER = 4
_SMALLEST_ALLOWANCE = 16
# Past this share of the catalog a sorted answer costs more than one scan.
_LARGEST_SHARE = 8
# Hits held at once, 12 bytes each: deep searches take the users in smaller groups.
_MOST_HITS = 1 << 23


class InterestSearch:
    """Searches the interests of batches of users in one index.

    index: over the same vectors. vectors: float32[N, D], may be memory-mapped. n: size of a pool. blocked: bool[N],
    items nobody gets.

    Raises:
        IntegrityError: index, vectors and blocked do not belong together.
    """

    def __init__(
        self,
        index: AbstractIndex,
        vectors: Float32[np.ndarray, "n d"],
        n: int,
        *,
        blocked: Bool[np.ndarray, "n"] | None = None,
        threads: int = 0,
    ) -> None:
        # A memory map becomes a plain view of the same pages: compiled code knows no maps.
        self.index, self.vectors, self.n, self.threads = index, np.asarray(vectors), n, threads
        self._close(np.zeros(len(vectors), dtype=bool) if blocked is None else blocked)
        self._largest_norm = float(np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64).max(initial=0.0)))

    def without(self, blocked: Bool[np.ndarray, "n"]) -> "InterestSearch":
        """The same search, not a copy, in which these items are blocked as well."""
        other = copy.copy(self)
        other._close(self.blocked | blocked)  # noqa: SLF001 (of the same class)
        return other

    def _close(self, blocked: Bool[np.ndarray, "n"]) -> None:
        index, self.blocked = self.index, blocked
        if self.vectors.shape != (index.count, index.dimension) or blocked.shape != (index.count,):
            shapes = f"vectors {self.vectors.shape} and blocked {blocked.shape}"
            raise IntegrityError(f"{shapes} do not belong to the index", expected=f"{index.count} items of {index.dimension} dimensions")
        self._open_rows: Int64[np.ndarray, m] = np.flatnonzero(~blocked)
        self._masked = index.without(blocked)
        # An index that leaves out what is blocked is asked for no more than is needed.
        self._open_share = 1.0 - float(blocked.mean()) if self._masked is index else 1.0
        self._fused = index.search_users(blocked, self.threads) if isinstance(index, ExactIndex) else None

    def __call__(self, interests: Float32[np.ndarray, "b k d"], valid: Bool[np.ndarray, "b k"], seen: Seen) -> Pools:
        """The pools of a batch.

        Raises:
            UsageError: the shapes do not fit each other or the index. IntegrityError: a valid interest is not finite or
                so large that scores overflow, or a seen row is no item.
        """
        interests = self._checked(interests, valid, seen)
        if self._fused is not None:
            return self._fused(interests, valid, seen, self.n)
        batch = (interests, valid, seen.offsets, seen.items)
        pools = Pools.empty(len(interests), self.n)
        depth = self._first_depths(valid, np.diff(seen.offsets))
        while (depth > 0).any():
            m = int(depth[depth > 0].min())
            members = np.flatnonzero(depth == m)
            depth[members] = self._fill(members, m, batch, pools)
        return pools

    def _checked(self, interests: np.ndarray, valid: np.ndarray, seen: Seen) -> np.ndarray:
        fits = interests.ndim == 3 and interests.shape[:2] == valid.shape and len(seen.offsets) == len(interests) + 1
        if not fits or interests.shape[2] != self.index.dimension or int(seen.offsets[-1]) > len(seen.items):
            raise UsageError(
                f"interests {interests.shape}, valid {valid.shape}, {len(seen.offsets) - 1} histories do not fit", where="recall"
            )
        if seen.items.size and (int(seen.items.min()) < 0 or int(seen.items.max()) >= self.index.count):
            raise IntegrityError("a history holds a row that is no item", expected=f"0 to {self.index.count - 1}")
        searched = as_vectors(np.where(valid[:, :, None], interests, 0).reshape(-1, self.index.dimension), "interests").astype(np.float64)
        require_finite_scores(self._largest_norm, searched, "interests")
        return searched.reshape(interests.shape)

    def _first_depths(self, valid: np.ndarray, seen_counts: Int64[np.ndarray, "b"]) -> Int64[np.ndarray, "b"]:
        """Hits to ask for, a function of the user alone: users of like depth share a search; 0 where nothing is valid."""
        allowance = np.where(seen_counts > 0, np.maximum(_SMALLEST_ALLOWANCE, 2 ** np.ceil(np.log2(np.maximum(seen_counts, 1)))), 0)
        needed = (self.n + self.index.settings.over_fetch + allowance) / max(self._open_share, 1 / self.index.count)
        return np.where(valid.any(axis=1), np.minimum(np.ceil(needed), self.index.count), 0).astype(np.int64)

    def _too_deep(self, m: int) -> bool:
        # Where a filter leaves few items, looking at each costs less than any search, and settles every pool.
        few_are_open = len(self._open_rows) <= max(self.n * _DEEPER, m)
        return few_are_open or m > max(self.index.count // _LARGEST_SHARE, self.n * _DEEPER)

    def _fill(self, members: Int64[np.ndarray, "g"], m: int, batch: tuple[np.ndarray, ...], pools: Pools) -> Int64[np.ndarray, "g"]:
        """Fill the members' pools from m hits an interest; the hits to ask for next, 0 where the pool is settled."""
        if self._too_deep(m):
            self._scan(members, batch, pools)
            return np.zeros_like(members)
        size = max(1, _MOST_HITS // (m * batch[1].shape[1]))
        settled = [self._attempt(members[first : first + size], m, batch, pools) for first in range(0, len(members), size)]
        return np.where(np.concatenate(settled), 0, m * _DEEPER)

    def _attempt(self, members: Int64[np.ndarray, "g"], m: int, batch: tuple[np.ndarray, ...], pools: Pools) -> Bool[np.ndarray, "g"]:
        """Search m hits an interest and fill the members' pools; which of them are settled."""
        searched = batch[1][members]
        queries = np.where(searched, np.cumsum(searched).reshape(searched.shape) - 1, -1)
        hits = self._masked.search(batch[0][members][searched].astype(np.float32), m)
        settled = np.zeros(len(members), dtype=bool)
        keep = self.n + self.index.settings.over_fetch if self.index.is_exact else m * searched.shape[1]
        arguments = (members, (hits.rows, hits.scores, queries), batch, (self.vectors, self.blocked), keep)
        out = (pools.rows, pools.scores, pools.interest)
        over_chunks(merge_users, len(members), self.threads, *arguments, self._slack(batch[0][members]), out, settled)
        return settled

    def _slack(self, interests: Float64[np.ndarray, "g k d"]) -> np.ndarray:
        """The largest rounding error of a float32 inner product with any item, whatever its order of additions."""
        if not self.index.is_exact:
            return np.full(len(interests), np.inf)
        norms: np.ndarray = np.linalg.norm(interests, axis=2).max(axis=1)
        return norms * self._largest_norm * (self.index.dimension + 2) * float(np.finfo(np.float32).eps)

    def _scan(self, members: Int64[np.ndarray, "g"], batch: tuple[np.ndarray, ...], pools: Pools) -> None:
        out = (pools.rows, pools.scores, pools.interest)
        over_chunks(scan_users, len(members), self.threads, members, batch, (self.vectors, self._open_rows), out)
