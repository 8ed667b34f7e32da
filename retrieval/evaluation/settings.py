"""What to measure and how sure to be: settings of the evaluation, plain values only."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from retrieval.core.settings import Settings, did_you_mean

ACCURACY_METRICS = ("recall", "hr", "precision", "ndcg", "ndcg_comirec", "mrr", "map")
BEYOND_METRICS = ("diversity", "novelty")
BASELINES = ("popular", "popular-lately", "markov", "item-knn", "youtube-dnn", "k1")

Cutoff = Annotated[int, Field(ge=1, le=10_000)]
Lambda = Annotated[float, Field(ge=0.0)]


class EvaluationSettings(Settings):
    """Cut-offs, intervals, and what to compare with.

    `cutoffs`: list lengths n. `resamples`, `confidence`, `seed`: of the bootstrap over users. `primary`: the metric
    that decides, such as "recall@50". `frontier_builders`: list builders whose recall and diversity are traded, besides
    the run's own, each at the weights `frontier_lambdas`; names are checked by the recipe. `baselines`: systems every
    report stands beside; names are checked by the stage that builds them.
    """

    cutoffs: tuple[Cutoff, ...] = Field((10, 20, 50), min_length=1)
    resamples: int = Field(1000, ge=10, le=100_000)
    confidence: float = Field(0.95, gt=0.0, lt=1.0)
    seed: int = Field(0, ge=0)
    primary: str = "recall@50"
    frontier_builders: tuple[str, ...] = ("category_greedy",)
    frontier_lambdas: tuple[Lambda, ...] = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)
    baselines: tuple[str, ...] = BASELINES

    @model_validator(mode="after")
    def _cutoffs_differ(self) -> Self:
        if len(set(self.cutoffs)) != len(self.cutoffs):
            raise ValueError(f"cutoffs {list(self.cutoffs)} has the same number twice")
        return self

    @model_validator(mode="after")
    def _primary_is_measured(self) -> Self:
        name, _, cutoff = self.primary.partition("@")
        known = ACCURACY_METRICS + BEYOND_METRICS
        if name not in known:
            raise ValueError(f"unknown metric '{name}' in primary{did_you_mean(name, known)}")
        if not cutoff.isdecimal() or int(cutoff) not in self.cutoffs:
            raise ValueError(f"primary '{self.primary}' needs one of the cutoffs {list(self.cutoffs)} after the @")
        return self

    @property
    def primary_cutoff(self) -> int:
        """The list length n of the primary metric."""
        return int(self.primary.partition("@")[2])

    @property
    def depth(self) -> int:
        """The longest cut-off: ranks beyond it are never looked at."""
        return max(self.cutoffs)
