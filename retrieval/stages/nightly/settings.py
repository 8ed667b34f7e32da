"""Settings of the nightly run: when to train anew, what stops a publication, what is kept."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from retrieval.core.settings import Settings
from retrieval.index.choice.settings import Seconds

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class DataGates(Settings):
    """The night's day against good ones before.

    volume: least and greatest number of events, as a multiple of the median of the last 28 good days. max_drift: Jensen-Shannon divergence
    in bits (0 the same, 1 nothing in common) of the hours, kinds and categories of events from the last good day's, what chance gives
    taken off. max_bad: rows that are newly in quarantine, as a share of the rows that are new; at least the
    contract's max_bad_share. min_kept: share of the published users and
    items that the night still knows by their ids.
    """

    volume: tuple[float, float] = (0.5, 2.0)
    max_drift: Share = 0.1
    max_bad: Share = 0.05
    min_kept: Share = 0.1

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 0.0 <= self.volume[0] <= self.volume[1]:
            raise ValueError(f"volume {list(self.volume)} is not a least and a greatest multiple")
        return self


class ModelGates(Settings):
    """The night's model.

    min_ann_recall: share of the exact lists that the index finds. max_loss: share of the published model's primary metric that the
    night's may lose; it fails where it surely loses more, by the paired interval over users whom neither model was trained on.
    visible_loss: the loss that these users must be able to show (power 0.8), or recall is not judged. min_primary: least value of the
    primary metric, whatever is published. max_decline: the share of it that may be lost in many nights together, against the night that
    a quarter of the last 28 good ones surpass. max_cosine, min_effective_rank, max_dead: when the
    interests of a model of several count as collapsed.
    """

    min_ann_recall: Share = 0.9
    max_loss: Share = 0.01
    visible_loss: float = Field(0.1, ge=0.0)
    min_primary: Share = 0.0
    max_decline: Share = 0.15
    max_cosine: Share = 0.95
    min_effective_rank: float = Field(1.05, ge=0.0)
    max_dead: Share = 0.75


class ListGates(Settings):
    """The night's lists.

    min_coverage: least share of the published lists' coverage of the catalog. overlap: least and greatest mean share of a list that stood
    in the same user's published one, over `users` users drawn from both. max_empty, max_short: share of users without a list, and with
    one shorter than recall.n. max_wait: seconds ("20ms") that 95 of 100 single users may wait for their search, 0 for no limit.
    max_slowdown: the same as a multiple of the published index's, timed beside it.
    """

    min_coverage: Share = 0.5
    overlap: tuple[Share, Share] = (0.02, 1.0)
    users: int = Field(20_000, ge=1)
    max_empty: Share = 0.0
    max_short: Share = 0.05
    max_wait: Seconds = Field(0.0, ge=0.0)
    max_slowdown: float = Field(3.0, gt=0.0)


class Tracking(Settings):
    """Experiment trackers that get a night's figures and its training curve.

    sinks: which of `mlflow` and `tensorboard`. to: MLflow's tracking URI, or TensorBoard's folder; each has its own default.
    """

    sinks: tuple[Literal["mlflow", "tensorboard"], ...] = ()
    to: str = ""


class NightlySettings(Settings):
    """The [nightly] table of a recipe; no part of it changes what a stage makes.

    retrain_every: nights from one training from fresh weights to the next; in between, training goes on from the model that was
    published last before the night, as `train.warm_steps` and `train.warm_newest` say. 1: always anew. 0: only where there is nothing
    to go on from, or it does not fit.
    keep: published versions whose artifacts stay, the one to roll back to included. store: s3://BUCKET/PREFIX of what several machines,
    or one whose disk is empty every night, have in common: what is published, and the records of nights. metrics: the folder from
    which Prometheus' node exporter takes files, for one by the recipe's name; beside the publication by default. report: whether the
    report page is made.
    """

    retrain_every: int = Field(7, ge=0)
    keep: int = Field(3, ge=2)
    store: str = ""
    metrics: str = ""
    report: bool = True
    data: DataGates = DataGates()
    model: ModelGates = ModelGates()
    lists: ListGates = ListGates()
    tracking: Tracking = Tracking()
