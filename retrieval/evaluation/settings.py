"""What to measure and how sure to be: settings of the evaluation, plain values only."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from retrieval.core.settings import Settings, did_you_mean

ACCURACY_METRICS = ("recall", "hr", "precision", "ndcg", "ndcg_comirec", "mrr", "map")
UNION_METRICS = ("union_recall", "union_size")
LABEL_METRICS = ("alpha_ndcg",)
VARIETY_METRICS = ("diversity", "entropy")
POPULARITY_METRICS = ("novelty", "head_share", "torso_share", "tail_share")
DISTANCE_METRICS = ("distance",)
CALIBRATION_METRICS = ("calibration_kl", "calibration_js")
BEYOND_METRICS = (*LABEL_METRICS, *VARIETY_METRICS, *POPULARITY_METRICS, *DISTANCE_METRICS, *CALIBRATION_METRICS)
LOWER_IS_BETTER = (*CALIBRATION_METRICS, "gini")
NEITHER_IS_BETTER = ("head_share", "torso_share", "tail_share", "union_size", "union_recall")
"""What lists are made of, and figures of more items than the list has: no direction is good by itself."""
PRIMARY_METRICS = tuple(name for name in ACCURACY_METRICS + BEYOND_METRICS if name not in LOWER_IS_BETTER + NEITHER_IS_BETTER)
"""What may decide: verdicts, gates and searches all take higher for better."""
BASELINES = ("popular", "popular-lately", "markov", "item-knn", "youtube-dnn", "k1")
FRONTIER_BUILDERS = ("category_greedy", "multi_category_greedy", "mmr", "dpp", "ssd", "calibration", "xquad")
"""Every list builder whose lists move with lambda alone: quotas need bounds that only a recipe knows."""

Cutoff = Annotated[int, Field(ge=1, le=10_000)]
Lambda = Annotated[float, Field(ge=0.0)]


class SliceSettings(Settings):
    """How users and targets are divided, and when a part is too small to tell.

    least_users: a slice with fewer users says that they are few. values: the largest parts of a dimension that are shown.
    new_items, new_users: fewer training or visible events than that are new. activity_days: how far back visible events
    count as activity.
    """

    least_users: int = Field(100, ge=1)
    values: int = Field(12, ge=1, le=200)
    new_items: int = Field(5, ge=1)
    new_users: int = Field(5, ge=1)
    activity_days: float = Field(7.0, gt=0.0)


class EvaluationSettings(Settings):
    """Cut-offs, intervals, and what to compare with.

    `cutoffs`: list lengths n. `resamples`, `confidence`, `seed`: of the bootstrap over users. `power`: the chance to see a
    difference that the detectable difference promises. `primary`: the metric that decides, such as "recall@50"; of those
    where higher is better. `lists`:
    one merged list a user; or one an interest, which are merged to one of n before anything is counted (their union is
    measured under that name). `alpha`: of alpha-NDCG. `head`, `tail`: the head are the most popular items with this share of
    all training events, the tail the least popular with that share (Abdollahpouri et al., RMSE 2019). `slices`: parts of
    users and targets. `block_users`: users measured at once; it bounds memory. `frontier_builders`: list builders whose
    recall and diversity are traded, besides the run's own, each at the weights `frontier_lambdas`; names are checked by the
    recipe; without weights nothing is traded. `frontier_users`: users whose lists are built for it, drawn by seed, at most.
    `sample_users`: users whose targets the interests compete for, at most.
    `baselines`: systems every report stands beside; names are checked by the stage that builds them.
    """

    cutoffs: tuple[Cutoff, ...] = Field((10, 20, 50), min_length=1)
    resamples: int = Field(1000, ge=10, le=100_000)
    confidence: float = Field(0.95, gt=0.0, lt=1.0)
    power: float = Field(0.8, gt=0.0, lt=1.0)
    seed: int = Field(0, ge=0)
    primary: str = "recall@50"
    lists: Literal["merged", "per-interest"] = "merged"
    alpha: float = Field(0.5, ge=0.0, le=1.0)
    head: float = Field(0.2, gt=0.0, lt=1.0)
    tail: float = Field(0.2, gt=0.0, lt=1.0)
    slices: SliceSettings = SliceSettings()
    block_users: int = Field(1 << 18, ge=1)
    frontier_builders: tuple[str, ...] = FRONTIER_BUILDERS
    frontier_lambdas: tuple[Lambda, ...] = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)
    frontier_users: int = Field(10_000, ge=1)
    sample_users: int = Field(100_000, ge=1)
    baselines: tuple[str, ...] = BASELINES

    @model_validator(mode="after")
    def _cutoffs_differ(self) -> Self:
        if len(set(self.cutoffs)) != len(self.cutoffs):
            raise ValueError(f"cutoffs {list(self.cutoffs)} has the same number twice")
        return self

    @model_validator(mode="after")
    def _groups_do_not_meet(self) -> Self:
        if self.head + self.tail > 1.0:
            raise ValueError(f"head = {self.head} and tail = {self.tail} are more than 1 together")
        return self

    @model_validator(mode="after")
    def _primary_is_measured(self) -> Self:
        name, _, cutoff = self.primary.partition("@")
        if name in LOWER_IS_BETTER + NEITHER_IS_BETTER:
            raise ValueError(f"primary '{self.primary}' cannot decide: higher is not better; choose one of {', '.join(PRIMARY_METRICS)}")
        if name not in PRIMARY_METRICS:
            raise ValueError(f"unknown metric '{name}' in primary{did_you_mean(name, PRIMARY_METRICS)}")
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

    @property
    def ascending(self) -> tuple[int, ...]:
        """The cut-offs from the shortest to the longest."""
        return tuple(sorted(self.cutoffs))
