"""Which interest brought what into the lists, and which found the hits."""

import numpy as np

from retrieval.core.settings import Settings
from retrieval.evaluation import kernels
from retrieval.evaluation.judgements import JudgedLists


class InterestShare(Settings):
    """What one interest brought to the first n of all lists: share of the places and of the hits that interests brought."""

    interest: int
    n: int
    places: int
    hits: int
    share_of_places: float
    share_of_hits: float | None

    @property
    def precision(self) -> float | None:
        """Hits a place."""
        return self.hits / self.places if self.places else None


class Contribution:
    """Counts places and hits by interest; candidates that do not name interests have none."""

    def __init__(self, cutoffs: tuple[int, ...]) -> None:
        self._cutoffs = np.asarray(cutoffs, np.int64)
        self._places, self._hits = np.zeros((2, 0, len(cutoffs)), np.int64)

    def add(self, judged: JudgedLists) -> None:
        """Count the lists of a block."""
        if not judged.origin.shape[1]:
            return
        missing = int(judged.origin.max(initial=-1)) + 1 - len(self._places)
        if missing > 0:
            self._places, self._hits = (np.pad(each, ((0, missing), (0, 0))) for each in (self._places, self._hits))
        kernels.count_interests(judged.items, judged.origin, (judged.offsets, judged.ranks), self._cutoffs, self._places, self._hits)

    def shares(self) -> tuple[InterestShare, ...]:
        """One entry an interest and cut-off."""
        places, hits = self._places.cumsum(axis=1), self._hits.cumsum(axis=1)
        return tuple(
            InterestShare(
                interest=interest,
                n=int(n),
                places=int(places[interest, q]),
                hits=int(hits[interest, q]),
                share_of_places=_share(places, interest, q) or 0.0,
                share_of_hits=_share(hits, interest, q),
            )
            for q, n in enumerate(self._cutoffs)
            for interest in range(len(places))
        )


def _share(counts: np.ndarray[tuple[int, ...], np.dtype[np.int64]], interest: int, q: int) -> float | None:
    total = int(counts[:, q].sum())
    return int(counts[interest, q]) / total if total else None
