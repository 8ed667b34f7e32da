"""The metrics of a block of judged lists, family by family: what is known decides what is measured.

Accuracy (binary relevance; a list shorter than n counts as if the rest of it missed; ranks are among all items, nothing is sampled):
  recall: share of the user's targets among the first n. hr: 1 when any is. precision: targets among the first n, over n.
  ndcg: discounted gain over that of min(n, targets) hits at the top (Järvelin and Kekäläinen 2002).
  ndcg_comirec: the official ComiRec NDCG, for parity only: the ideal has as many hits as the list itself, so it rewards the order of
    the hits and not their number.
  mrr: 1 / rank of the first target among the first n, else 0. map: precision at the rank of every hit, summed, over min(n, targets).
With categories:
  alpha_ndcg: a further hit of a category gains (1 - alpha) of the one before, over the same gain of the greedy order of the user's
    targets (Clarke et al., SIGIR 2008; of equal gains the target of the smallest id); of users with a categorised target.
  diversity: share of the pairs within n whose first categories differ (ComiRec, section 4.4; a rank without a category is left out,
    and fewer than two of them have no diversity, where the reference divides by zero). entropy: of the first categories, in bits.
With training events:
  novelty: mean -log2 of the items' share of events (Zhou et al. 2010). head_share, torso_share, tail_share: of the listed items.
With item vectors:
  distance: intra-list distance, mean of 1 - cosine over the pairs (Ziegler et al., WWW 2005).
With categories and histories (Steck, RecSys 2018; an item's categories share it equally):
  calibration_kl: KL(history || .99 list + .01 history), nats. calibration_js: Jensen-Shannon divergence, bits.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from retrieval.core.errors import UsageError
from retrieval.evaluation import kernels
from retrieval.evaluation.facts import Histories, ItemFacts
from retrieval.evaluation.judgements import JudgedLists
from retrieval.evaluation.settings import (
    ACCURACY_METRICS,
    CALIBRATION_METRICS,
    DISTANCE_METRICS,
    LABEL_METRICS,
    POPULARITY_METRICS,
    UNION_METRICS,
    VARIETY_METRICS,
    EvaluationSettings,
)
from retrieval.index.threads import over_chunks

Values = npt.NDArray[np.float64]
Families = dict[tuple[str, ...], Callable[[JudgedLists, Values], None]]
_SMOOTHING: Final = 0.01
_NEEDED: Final = {
    (*LABEL_METRICS, *VARIETY_METRICS): "items with categories",
    POPULARITY_METRICS: "items with events",
    DISTANCE_METRICS: "items with vectors, which a recipe's run has",
}


@dataclass(frozen=True)
class Knowledge:
    """What lists are measured with besides the truth."""

    facts: ItemFacts | None = None
    histories: Histories | None = None
    lengths: npt.NDArray[np.float32] | None = None
    """Of the facts' vectors, float32[N]."""

    @classmethod
    def of(cls, facts: ItemFacts | None, histories: Histories | None = None) -> "Knowledge":
        """Takes the lengths of the vectors, once for all blocks."""
        vectors = None if facts is None else facts.vectors
        lengths = None if vectors is None else np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)).astype(np.float32)
        return cls(facts, histories, lengths)


class Metrics:
    """Which metrics can be measured, and their values block by block."""

    def __init__(self, settings: EvaluationSettings, knowledge: Knowledge, threads: int = 0) -> None:
        self.settings, self.knowledge, self.threads = settings, knowledge, threads
        self._cutoffs = np.asarray(settings.ascending, np.int64)
        depth = np.arange(1, settings.depth + 1)
        self._gains = 1.0 / np.log2(depth + 1.0)
        self._ideal = np.concatenate([[0.0], np.cumsum(self._gains)])

    @property
    def families(self) -> Families:
        """Names of metrics, and what fills their columns."""
        facts = self.knowledge.facts
        found: Families = {ACCURACY_METRICS: self._accuracy}
        if self.settings.lists == "per-interest":
            found[UNION_METRICS] = self._union
        if facts is not None and facts.labels is not None and facts.labels.names:
            found |= {LABEL_METRICS: self._alpha_ndcg, VARIETY_METRICS: self._variety}
        if facts is not None and facts.popularity is not None:
            found[POPULARITY_METRICS] = self._popularity
        if facts is not None and facts.vectors is not None:
            found[DISTANCE_METRICS] = self._distance
        if LABEL_METRICS in found and self.knowledge.histories is not None:
            found[CALIBRATION_METRICS] = self._calibration
        return found

    @property
    def columns(self) -> list[str]:
        """Names of the columns of `values`, such as "recall@50"."""
        return [f"{name}@{n}" for names in self.families for name in names for n in self.settings.ascending]

    def require_primary(self) -> None:
        """Raise UsageError where what is known does not suffice to measure the metric that decides."""
        primary = self.settings.primary
        if primary not in self.columns:
            missing = next(what for names, what in _NEEDED.items() if primary.partition("@")[0] in names)
            raise UsageError(
                f"{primary} cannot be measured", where="primary", expected=missing, remedy="give them, or choose another primary"
            )

    def values(self, judged: JudgedLists) -> Values:
        """float64[U, columns], NaN where a user has no value."""
        parts: list[Values] = []
        for names, fill in self.families.items():
            parts.append(np.full((len(judged.users), len(names) * len(self._cutoffs)), np.nan))
            fill(judged, parts[-1])
        return np.concatenate(parts, axis=1)

    def _run(self, kernel: Callable[..., Any], judged: JudgedLists, *arguments: Any) -> None:
        over_chunks(kernel, len(judged.users), self.threads, *arguments)

    def _accuracy(self, judged: JudgedLists, out: Values) -> None:
        self._run(kernels.accuracy, judged, (judged.offsets, judged.ranks), self._cutoffs, (self._gains, self._ideal), out)

    def _union(self, judged: JudgedLists, out: Values) -> None:
        if judged.union is not None:
            out[:] = judged.union

    def _alpha_ndcg(self, judged: JudgedLists, out: Values) -> None:
        truth, kept = (judged.offsets, judged.targets, judged.ranks), 1.0 - self.settings.alpha
        self._run(kernels.alpha_ndcg, judged, truth, self._labels.arrays, self._cutoffs, self._gains, kept, out)

    def _variety(self, judged: JudgedLists, out: Values) -> None:
        self._run(kernels.variety, judged, judged.items, self._labels.primary, len(self._labels.names), self._cutoffs, out)

    def _popularity(self, judged: JudgedLists, out: Values) -> None:
        known = self._facts.popularity
        if known is not None:
            self._run(kernels.popularity, judged, judged.items, known.bits, known.groups, self._cutoffs, out)

    def _distance(self, judged: JudgedLists, out: Values) -> None:
        self._run(kernels.distance, judged, judged.items, self._facts.vectors, self.knowledge.lengths, self._cutoffs, out)

    def _calibration(self, judged: JudgedLists, out: Values) -> None:
        if self.knowledge.histories is not None:
            past = self.knowledge.histories(judged.users)
            self._run(kernels.calibration, judged, judged.items, past, self._labels.arrays, self._cutoffs, _SMOOTHING, out)

    @property
    def _facts(self) -> ItemFacts:
        if self.knowledge.facts is None:
            raise TypeError("nothing is known of the items")
        return self.knowledge.facts

    @property
    def _labels(self) -> Any:
        return self._facts.labels


def pieces(judged: JudgedLists, size: int) -> Iterator[JudgedLists]:
    """The same users in order, at most `size` at a time."""
    for start in range(0, len(judged.users), size):
        yield judged.part(start, min(start + size, len(judged.users)))
