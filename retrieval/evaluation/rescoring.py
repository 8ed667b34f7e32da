"""What re-scoring is worth: the same candidates in two orders, measured alike on the same users, and the time of the second one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pydantic import Field

from retrieval.core.settings import Settings
from retrieval.evaluation.bootstrap import Interval
from retrieval.evaluation.comparison import Comparison, compare
from retrieval.evaluation.evaluator import evaluate
from retrieval.evaluation.facts import ItemFacts
from retrieval.evaluation.settings import ACCURACY_METRICS, EvaluationSettings
from retrieval.evaluation.truth import GroundTruth

AT: Final = 20
"""Re-scorers are compared at this cut-off, whatever else is measured: recall@20."""


class RescoringCost(Settings):
    """Milliseconds of processor time a user, all threads together: of recall up to the candidates, and of re-scoring these."""

    users: int
    """Whose time was taken."""
    recall: float
    rescoring: float

    def in_words(self) -> str:
        """`4.80 ms of processor time a user, beside 0.20 ms of recall`."""
        return f"{self.rescoring:.2f} ms of processor time a user, beside {self.recall:.2f} ms of recall"


class RescoringGain(Settings):
    """Re-scored candidates against the order of recall, which is that of the largest score over a user's interests.

    `recalled`, `rescored`: means of the first n candidates in either order, before any list is built of them. `comparison`: re-scored
    minus recalled, user by user.
    """

    primary: str
    recalled: dict[str, Interval] = Field(default_factory=dict)
    rescored: dict[str, Interval] = Field(default_factory=dict)
    comparison: Comparison
    cost: RescoringCost | None = None

    @property
    def earned(self) -> bool:
        """Whether the metric that decides is surely higher than in the order of recall."""
        return self.comparison.higher(self.primary) is True

    def verdict(self) -> str:
        """Whether re-scoring earns its time, in a sentence."""
        found, cost = self.comparison.differences.get(self.primary), "" if self.cost is None else f" for {self.cost.in_words()}"
        if found is None or found.mean is None:
            return f"Whether re-scoring earns its time is not known: no user has a value of {self.primary}."
        between = "" if found.low is None or found.high is None else f" ({found.low:+.4f} to {found.high:+.4f})"
        moved = f"moves {self.primary} of the same candidates by {found.mean:+.4f}{between} against the order of recall{cost}"
        if self.earned:
            return f"Re-scoring earns its time: it {moved}."
        return f"Re-scoring does not earn its time: it {moved}, which is no sure gain; set rescore.name = 'none'."


def rescoring_gain(
    rescored: Sequence[Path], recalled: Sequence[Path], truth: Path | GroundTruth, facts: ItemFacts | None, settings: EvaluationSettings
) -> RescoringGain:
    """Measure two tables of the same candidates (user_id, item_id, rank from 1) at `AT` and the cut-offs of the settings.

    `facts` of items are looked at only where the metric that decides needs them.

    Raises:
        DataContractError: a file cannot be read or breaks its contract.
    """
    family = settings.primary.partition("@")[0]
    wanted = settings.model_copy(update={"cutoffs": tuple(sorted({*settings.cutoffs, AT})), "lists": "merged"})
    known = None if family in ACCURACY_METRICS else facts
    first, second = (evaluate(files, truth, known, wanted) for files in (rescored, recalled))
    return RescoringGain(
        primary=settings.primary,
        rescored=first.summary.metrics,
        recalled=second.summary.metrics,
        comparison=compare(first, second),
    )
