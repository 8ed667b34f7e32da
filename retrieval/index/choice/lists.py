"""What inverted lists would find, known before any index is built: how far down its lists each exact item lies."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64

from retrieval.index.choice.judge import Judge
from retrieval.index.faiss.build import Coarse

_USERS = 256


@dataclass(frozen=True)
class Depths:
    """depths: int32[U, n], the number of lists to visit for each exact item. scanned: float64[L], codes that a user's
    interests read together when each visits so many lists (index 0: one list), the mean over users.
    """

    depths: Int32[np.ndarray, "u n"]
    scanned: Float64[np.ndarray, "l"]

    def shares(self, nprobe: int) -> Float64[np.ndarray, "u"]:
        """The share of its exact list that each user finds in so many lists at most, by codes without loss.

        Less is found where an item lies in a list that only an interest visits which finds n others better.
        """
        shares: Float64[np.ndarray, u] = (self.depths <= nprobe).mean(axis=1)
        return shares

    def scanned_at(self, nprobe: int) -> float:
        """Codes a user reads."""
        return float(self.scanned[min(nprobe, len(self.scanned)) - 1])


def depths_of(coarse: Coarse, judge: Judge) -> Depths:
    """Rank the lists for each interest; an item's depth is the least over the user's interests."""
    sizes = np.bincount(coarse.lists, minlength=len(coarse.centroids)).astype(np.float64)
    parts = [_of_users(slice(first, first + _USERS), coarse, sizes, judge) for first in range(0, len(judge.interests), _USERS)]
    depths = np.concatenate([depth for depth, _ in parts])
    return Depths(depths, np.sum([scanned for _, scanned in parts], axis=0) / len(depths))


def _of_users(part: slice, coarse: Coarse, sizes: Float64[np.ndarray, "l"], judge: Judge) -> tuple[np.ndarray, np.ndarray]:
    depths, scanned = np.full(judge.rows[part].shape, len(sizes), np.int32), np.zeros(len(sizes))
    own = coarse.lists[judge.rows[part]]
    for interest in range(judge.interests.shape[1]):
        _add(judge.interests[part, interest], judge.valid[part, interest], coarse.centroids, own, sizes, depths, scanned)
    return depths, scanned


def _add(
    queries: Float32[np.ndarray, "u d"],
    valid: Bool[np.ndarray, "u"],
    centroids: Float32[np.ndarray, "l d"],
    own: Int64[np.ndarray, "u n"],
    sizes: Float64[np.ndarray, "l"],
    depths: Int32[np.ndarray, "u n"],
    scanned: Float64[np.ndarray, "l"],
) -> None:
    order = np.argsort(-(queries[valid] @ centroids.T), axis=1, kind="stable")
    ranks = np.empty(order.shape, np.int32)
    np.put_along_axis(ranks, order, np.arange(1, len(centroids) + 1, dtype=np.int32)[None], axis=1)
    depths[valid] = np.minimum(depths[valid], np.take_along_axis(ranks, own[valid], axis=1))
    scanned += np.cumsum(sizes[order], axis=1).sum(axis=0)
