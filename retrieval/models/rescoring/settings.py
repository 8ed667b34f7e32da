"""Settings of the re-scorers' blocks; free of torch."""

from pydantic import Field, PositiveInt

from retrieval.core.settings import Settings


class RescorerBlocks(Settings):
    """Sizes and weights of a re-scorer's parts."""

    attention: int = Field(36, ge=1)
    """Width of DIN's activation unit."""
    hidden: tuple[PositiveInt, ...] = (80, 40)
    """Widths of the layers between what was read and the score."""
    regularisation: float = Field(0.0, ge=0)
    """Lambda of the mini-batch-aware regularisation of item vectors."""
    auxiliary: float = Field(1.0, ge=0)
    """What DIEN's auxiliary loss weighs beside the loss of the scores."""
