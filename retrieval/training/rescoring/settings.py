"""Settings of re-scoring; free of torch."""

from typing import Literal

from pydantic import Field, model_validator

from retrieval.core.settings import Settings
from retrieval.models.rescoring.settings import RescorerBlocks
from retrieval.training.settings import OptimizerSettings, TrainSettings


class RescoreTraining(Settings):
    """How long a re-scorer is trained, and when it is looked at."""

    steps: int = Field(1000, ge=1)
    batch_size: int = Field(32, ge=1)
    """Positions a step."""
    negatives: int = Field(20, ge=1)
    """Recalled candidates that a positive competes with in a step."""
    validate_every: int = Field(100, ge=1)
    patience: int = Field(5, ge=0)
    """Validations without a new best before training stops; 0 never stops early."""
    checkpoint_every: int = Field(500, ge=1)
    optimizer: OptimizerSettings = OptimizerSettings()

    def of_loop(self) -> TrainSettings:
        """The same for the training loop."""
        return TrainSettings(
            **self.model_dump(include={"steps", "validate_every", "patience", "checkpoint_every"}), optimizer=self.optimizer
        )


class RescoreSettings(Settings):
    """The [rescore] table of a recipe: a stage between recall and list building."""

    name: Literal["none", "din", "dien"] = "none"
    positions: Literal["training", "validation"] = "training"
    """Where a re-scorer is trained. At `training` positions recall has seen the answers, so that its scores there are better
    than they will be; at `validation` positions it has not, but there are few. Test users' targets are never among them. Items that
    were not there yet at a position are no candidates there; a prior of the items (`model.prior`), which is of the cut, goes with
    `validation` alone."""
    examples: int = Field(20_000, ge=1)
    """Positions that candidates are recalled for, drawn by seed; memory is 13 bytes a candidate, and what a batch of recall takes."""
    horizon: int = Field(1, ge=1)
    """Positives are the recalled among so many events that follow a position."""
    history: int = Field(50, ge=1)
    """Newest events that a candidate is compared with."""
    watched: float = Field(0.2, gt=0, lt=1)
    """Share of the validation users on whose validation targets training is watched: these are never trained on, what the users did
    before only at `training` positions."""
    blocks: RescorerBlocks = RescorerBlocks()
    training: RescoreTraining = RescoreTraining()

    @model_validator(mode="after")
    def _blocks_are_read(self) -> "RescoreSettings":
        plain = RescorerBlocks()
        if self.name == "dien" and self.blocks.attention != plain.attention:
            raise ValueError("blocks.attention is the width of DIN's activation unit; dien has none, leave it out")
        if self.name == "din" and self.blocks.auxiliary != plain.auxiliary:
            raise ValueError("blocks.auxiliary weighs DIEN's own loss; din has none, leave it out")
        return self
