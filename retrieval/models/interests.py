"""What a user encoder returns."""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Interests:
    """K interest vectors a user; a single-vector model is K=1, never a special case.

    Invalid interests score -inf and are never searched. `routing` says how much of each history position went
    into each interest: over the positions for attention, over the interests for dynamic routing.
    """

    vectors: Float[Tensor, "B K D"]
    valid: Bool[Tensor, "B K"]
    routing: Float[Tensor, "B K L"] | None = None
    log_weights: Float[Tensor, "B K"] | None = None
    """Added to every score of an interest: an interest that hardly matters to a user loses against the others."""
