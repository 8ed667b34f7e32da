"""Whether a graph can be walked under the inner product."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from retrieval.core.seeds import derive_seed
from retrieval.index.exact.index import ExactIndex

_SAMPLE = 1000
_LARGEST_SPREAD, _MOST_LOST = 2.0, 0.1


@dataclass(frozen=True)
class Diagnostics:
    """norm_spread: the 99th percentile of the norms over the median. lost: the share of items that do not find themselves
    best. Long vectors draw every link to themselves, and what is not its own neighbour is not reached
    (Morozov and Babenko, 2018).
    """

    norm_spread: float
    lost: float

    @property
    def veto(self) -> str:
        """Why no graph is built, empty where one may be."""
        if self.norm_spread > _LARGEST_SPREAD:
            return f"norms spread {self.norm_spread:.2f}, more than {_LARGEST_SPREAD:g}"
        return f"{self.lost:.0%} of the items do not find themselves, more than {_MOST_LOST:.0%}" if self.lost > _MOST_LOST else ""


def diagnose(exact: ExactIndex, blocked: Bool[np.ndarray, "n"]) -> Diagnostics:
    """Look at a seeded sample of a thousand items that lists may hold; others may have no vector worth the name."""
    random = np.random.default_rng(derive_seed("index", "diagnostics"))
    open_rows = np.flatnonzero(~blocked)
    rows = np.sort(random.choice(open_rows, min(_SAMPLE, len(open_rows)), replace=False))
    vectors: Float32[np.ndarray, "s d"] = np.asarray(exact.vectors[rows])
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    spread = float(np.quantile(norms, 0.99) / max(np.median(norms), np.finfo(np.float32).tiny))
    # An equal is as good as the item itself.
    best = exact.search(vectors, 1).scores[:, 0]
    own = np.einsum("sd,sd->s", vectors, vectors)
    return Diagnostics(spread, float((best > own * (1 + 1e-5)).mean()))
