"""Settings of losses and negatives; free of torch."""

from typing import Literal

from pydantic import Field

from retrieval.core.settings import Settings


class PenaltySettings(Settings):
    """Weights of the penalties that are added to the loss; 0 leaves one out."""

    orthogonality: float = Field(0.0, ge=0)
    """Of the mean squared cosine between a user's interests."""
    routing: float = Field(0.0, ge=0)
    """Of the variance of the routing weights over the history (REMI's routing regularisation); attention encoders only."""


class LossSettings(Settings):
    """A softmax loss over the catalog, whole or sampled."""

    name: Literal["sampled-softmax", "full-softmax"] = "sampled-softmax"
    readout: Literal["max", "log-sum-exp", "hard", "label-aware"] = "max"
    """`max` scores every item by its own best interest, which is the score that is served, `log-sum-exp` by the smooth
    form of it, which gives every interest a share of the gradient; `hard` (ComiRec) and
    `label-aware` (MIND) let the positive choose the interests and score the negatives with that choice."""
    power: float = Field(8.0, ge=0)
    """p of the label-aware readout: 0 is the mean of the interests, large is the hard readout. It multiplies scores that
    are divided by the model's temperature already."""
    negatives: int = Field(1024, ge=1)
    """Shared by the batch, drawn with replacement."""
    sampler: Literal["uniform", "log-uniform", "popularity"] = "uniform"
    alpha: float = Field(0.75, ge=0, le=2)
    """Exponent of the popularity sampler."""
    mask_history: bool = False
    """Also leave out negatives that occur in the window of the positive, before or after it."""
    block_elements: int = Field(1_000_000, ge=1024)
    """Most scores held at a time: memory is bounded by this, not by the catalog."""
    penalties: PenaltySettings = PenaltySettings()

    @property
    def whole_catalog(self) -> bool:
        """Does a step read every item?"""
        return self.name == "full-softmax"
