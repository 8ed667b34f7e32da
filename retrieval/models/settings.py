"""Settings of the models; free of torch, so that a recipe can be read without it."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from retrieval.core.settings import Settings
from retrieval.models.fields.settings import FieldsSettings


class PriorSettings(Settings):
    """Fresh popularity as a prior of serving.

    A model learns how likely an item is over the whole training period. Where the mix of items moves quickly, its
    scores are corrected by log(share of the item in the last hours / share in training), which is how a posterior
    changes when only the prior does (Saerens et al., 2002).
    """

    hours: float = Field(0.0, ge=0)
    """What counts as fresh, before the end of training; 0 leaves the prior out. Needs a log with times."""
    weight: float = Field(1.0, ge=0)
    """Of the logarithm of the fresh share. 1 is the theory's; more believes the fresh counts and less what the model says
    about the user, which is right where it learned from clicks minutes apart and is asked about tomorrow."""
    smoothing: float = Field(1.0, gt=0)
    """Added to every count."""
    unseen: float = Field(0.5, ge=0, le=1)
    """With item fields: where, among the priors of the items with a fresh event, an item stands that training has not met, as a
    share of them: one half is in their middle, 1 level with the hottest. Who it is for is up to its fields."""


class EncoderSettings(Settings):
    """What every encoder has: D, L, and how scores are made."""

    dimension: int = Field(64, ge=1, le=4096)
    history: int = Field(50, ge=1, le=4096)
    similarity: Literal["dot", "cosine"] = "dot"
    temperature: float = Field(1.0, gt=0)
    """Scores are divided by it in training only; ranking does not depend on it."""
    learned_temperature: bool = False
    """Learn it, from `temperature` on and never below 0.01: cosine scores have a range that no one temperature suits for long."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Of the item vectors of the history, in training."""
    prior: PriorSettings = PriorSettings()
    fields: FieldsSettings = FieldsSettings()

    @model_validator(mode="after")
    def _poso_fits(self) -> "EncoderSettings":
        if self.fields.poso.form == "attention":
            _require_multiple(self.dimension, self.fields.poso.heads)
        return self


class MultiInterestSettings(EncoderSettings):
    """An encoder with K interests."""

    interests: int = Field(4, ge=1, le=64)


class MindSettings(MultiInterestSettings):
    """MIND (Li et al., CIKM 2019): behaviour-to-interest dynamic routing."""

    name: Literal["mind"] = "mind"
    iterations: int = Field(3, ge=1, le=10)
    adaptive: bool = True
    """K' = max(1, min(K, floor(log2 n))) valid interests for a history of n events."""
    layers: int = Field(1, ge=0, le=8)
    """Layers after the routing (H in the paper); 0 leaves the capsules as they are."""
    last_activation: Literal["relu", "linear"] = "linear"
    """The paper's is ReLU; linear lets a vector point anywhere."""


class ComiRecDRSettings(MultiInterestSettings):
    """ComiRec-DR (Cen et al., KDD 2020): dynamic routing with a transform per position and interest."""

    name: Literal["comirec-dr"] = "comirec-dr"
    iterations: int = Field(3, ge=1, le=10)
    init_std: float = Field(0.0, ge=0)
    """Standard deviation of the transforms at the start; 0 means 1/sqrt(D). The original has 1."""


class ComiRecSASettings(MultiInterestSettings):
    """ComiRec-SA (Cen et al., KDD 2020): self-attentive extraction."""

    name: Literal["comirec-sa"] = "comirec-sa"
    hidden_factor: int = Field(4, ge=1, le=64)
    positions: bool = True


class YouTubeDNNSettings(EncoderSettings):
    """YouTubeDNN (Covington et al., RecSys 2016): masked mean and layers; one vector."""

    name: Literal["youtube-dnn"] = "youtube-dnn"
    layers: int = Field(1, ge=0, le=8)


class Gru4RecSettings(EncoderSettings):
    """GRU4Rec (Hidasi et al., ICLR 2016): a recurrent network; one vector. The hidden size is the dimension."""

    name: Literal["gru4rec"] = "gru4rec"
    layers: int = Field(1, ge=1, le=8)
    readout: Literal["last", "mean"] = "last"
    """The state after the last event, or the mean of the states after every event."""
    hidden_dropout: float = Field(0.0, ge=0, lt=1)
    """Of what a layer hands on, in training; never of the state it keeps."""


class SASRecSettings(EncoderSettings):
    """SASRec (Kang & McAuley, ICDM 2018): a causal transformer; one vector."""

    name: Literal["sasrec"] = "sasrec"
    layers: int = Field(2, ge=1, le=32)
    heads: int = Field(1, ge=1, le=64)
    """Attention heads of a layer; they divide the dimension."""
    feed_forward_factor: int = Field(1, ge=1, le=16)

    @model_validator(mode="after")
    def _heads_fit(self) -> "SASRecSettings":
        _require_multiple(self.dimension, self.heads)
        return self


class InterestTransformerSettings(MultiInterestSettings):
    """A causal transformer that sees order and time, and K readers that divide the history among the interests."""

    name: Literal["interest-transformer"] = "interest-transformer"
    layers: int = Field(2, ge=1, le=32)
    heads: int = Field(2, ge=1, le=64)
    """Attention heads of a layer; each takes a multiple of four of the dimensions."""
    feed_forward_factor: int = Field(4, ge=1, le=16)
    timed: bool = True
    """Attention sees the time between events, and not their order alone. Has nothing to add where the log has only an order."""
    initial_scale: float = Field(4.0, gt=0, allow_inf_nan=False)
    """What the events' share of an interest is multiplied with at first; learned from there. A full softmax wants more."""
    readers: Literal["exemplars", "learned"] = "exemplars"
    """What divides a history among the interests: K events of it that stand for the rest, or K learned queries that are the same
    for all users. With one interest there is nothing to divide."""
    sharpness: float = Field(8.0, gt=0, allow_inf_nan=False)
    """`exemplars`: what cosines are multiplied with at first before events are shared among them; learned from there."""
    weighted: bool = False
    """Each user has a weight for each interest, added to its scores: one with a single intent can do without the others."""

    @model_validator(mode="after")
    def _heads_fit(self) -> "InterestTransformerSettings":
        _require_multiple(self.dimension, 4 * self.heads)
        return self


def _require_multiple(dimension: int, of: int) -> None:
    if dimension % of:
        raise ValueError(f"the dimension {dimension} has to be a multiple of {of} for so many heads")


class CountedSettings(Settings):
    """What is counted in one pass over the training events: no weights, no steps."""


class PopularSettings(CountedSettings):
    """Popularity as a model of one dimension: the same vector for everyone, the score of an item its count."""

    name: Literal["popular"] = "popular"
    last_days: float = Field(0.0, ge=0)
    """Count only the events of the last so many days before the end of training; 0 counts all. Needs a log with times."""


class NeighbourSettings(CountedSettings):
    """Items that speak for other items; where they have nothing to say, popularity as in `popular` speaks."""

    neighbours: int = Field(200, ge=1, le=10_000)
    """Kept of each item."""


class MarkovSettings(NeighbourSettings):
    """First-order Markov: what followed the user's last item in training, by its share of what followed."""

    name: Literal["markov"] = "markov"

    @property
    def recent(self) -> int:
        """How many of the newest events speak."""
        return 1


class ItemKNNSettings(NeighbourSettings):
    """Item-kNN: cosines, over who had both, with the distinct items of the newest events, added (Sarwar et al., WWW 2001)."""

    name: Literal["item-knn"] = "item-knn"
    recent: int = Field(50, ge=1, le=10_000)
    """How many of the newest events speak."""
    shrinkage: float = Field(10.0, ge=0, allow_inf_nan=False)
    """Added to the cosine's denominator: pairs that few users had count less (Ferrari Dacrema et al., RecSys 2019, section 3.1)."""


class ImportedSettings(Settings):
    """Vectors that somebody else trained. An item's score is the largest inner product with one of the user's vectors.

    Each is a parquet file, or a folder of them, as `retrieval embed --export` writes them: item_id or user_id as in the
    log, perhaps `interest` (which of a user's vectors, from 0), and `vector`, or the vectors in npy beside the ids.
    """

    name: Literal["imported"] = "imported"
    items: str = Field(min_length=1)
    users: str = ""
    """As users look now, with the whole history: what a nightly recall serves."""
    held_out: str = ""
    """As held-out users looked at the cut: what is evaluated. Vectors that know the hidden events would cheat."""

    @model_validator(mode="after")
    def _has_users(self) -> "ImportedSettings":
        if not (self.users or self.held_out):
            raise ValueError("imported vectors of items need those of users: model.users, model.held_out, or both")
        return self


ModelSettings = Annotated[
    MindSettings
    | ComiRecDRSettings
    | ComiRecSASettings
    | YouTubeDNNSettings
    | Gru4RecSettings
    | SASRecSettings
    | InterestTransformerSettings
    | PopularSettings
    | MarkovSettings
    | ItemKNNSettings
    | ImportedSettings,
    Field(discriminator="name"),
]
