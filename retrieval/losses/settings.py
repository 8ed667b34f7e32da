"""Settings of losses and negatives; free of torch."""

from typing import Literal

from pydantic import Field, model_validator

from retrieval.core.settings import Settings


class PenaltySettings(Settings):
    """Weights of the penalties that are added to the loss; 0 leaves one out."""

    orthogonality: float = Field(0.0, ge=0)
    """Of the mean squared cosine between a user's interests."""
    routing: float = Field(0.0, ge=0)
    """Of the variance of the routing weights over the history (REMI's routing regularisation); attention encoders only."""


class LossSettings(Settings):
    """What is minimised, and what the positives are compared with."""

    name: Literal["sampled-softmax", "full-softmax", "corrected-logq", "bce", "gbce", "bpr-max"] = "sampled-softmax"
    """`corrected-logq` is the sampled softmax with the refined correction of 2025, `gbce` calibrated binary cross-entropy
    (gSASRec), `bpr-max` GRU4Rec's. The last three count negatives as they are drawn: their sampler is part of the loss."""
    readout: Literal["max", "log-sum-exp", "hard", "sampled", "label-aware"] = "max"
    """`max` scores every item by its own best interest, which is the score that is served, `log-sum-exp` by the smooth
    form of it, which gives every interest a share of the gradient; `hard` (ComiRec), `sampled` and
    `label-aware` (MIND) let the positive choose the interests and score the negatives with that choice."""
    power: float = Field(8.0, ge=0)
    """p of the label-aware and the sampled readout: 0 is the mean or chance, large is the hard readout. It multiplies scores that
    are divided by the model's temperature already."""
    source: Literal["drawn", "in-batch", "mixed", "queue"] = "drawn"
    """Where negatives come from: `drawn` from the sampler; `in-batch`, the other positives of the batch; `mixed`, both;
    `queue`, the positives of this batch and of the last `queue_batches`. Log Q is that of the true mixture."""
    negatives: int = Field(1024, ge=1)
    """How many are drawn, with replacement, and shared by the batch (`drawn` and `mixed`)."""
    queue_batches: int = Field(4, ge=1)
    """Earlier batches in the queue. Their items are embedded anew, so no vector in it is stale."""
    sampler: Literal["uniform", "log-uniform", "popularity"] = "uniform"
    alpha: float = Field(0.75, ge=0, le=2)
    """Exponent of the popularity sampler."""
    leave_out: Literal["nothing", "past", "future", "window"] = "nothing"
    """Which items of the positive's window do not compete with it, besides itself: those the user knows already (`past`),
    those that come later (`future`), or both. Where lists leave out what was seen, `past` asks of the model what is
    served, and spends none of its dimensions on keeping the seen items down."""
    hardness: float = Field(0.0, ge=0)
    """beta of interest-aware hard negatives (REMI): negatives weigh e^(beta * score); 0 is off. Softmax losses only."""
    calibration: float = Field(0.75, ge=0, le=1)
    """t of `gbce`: 0 is plain binary cross-entropy, 1 fully calibrated probabilities."""
    score_regularization: float = Field(1.0, ge=0)
    """Of `bpr-max`: how strongly the scores of the best negatives are pulled towards zero."""
    block_elements: int = Field(1_000_000, ge=1024)
    """Most scores held at a time: memory is bounded by this, not by the catalog."""
    penalties: PenaltySettings = PenaltySettings()

    @property
    def whole_catalog(self) -> bool:
        """Does a step read every item?"""
        return self.name == "full-softmax"

    @model_validator(mode="after")
    def _used(self) -> "LossSettings":
        if self.hardness > 0 and self.name not in ("sampled-softmax", "corrected-logq"):
            raise ValueError(f"hardness weighs the negatives of a sampled softmax; {self.name} has none")
        if self.source != "drawn" and self.name == "full-softmax":
            raise ValueError(f"full-softmax compares with the whole catalog; source = '{self.source}' has no say")
        return self
