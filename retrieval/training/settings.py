"""Settings of training; free of torch."""

from typing import Literal

from pydantic import Field, model_validator

from retrieval.core.settings import Settings
from retrieval.losses.settings import LossSettings


class OptimizerSettings(Settings):
    """AdamW with warm-up."""

    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup_steps: int = Field(0, ge=0)
    schedule: Literal["constant", "cosine"] = "constant"
    """`cosine` falls to `final_share` of the rate over the planned steps."""
    final_share: float = Field(0.1, ge=0, le=1)
    clip_norm: float = Field(5.0, gt=0)
    item_table: Literal["auto", "dense", "row-wise"] = "auto"
    """`row-wise` touches only the rows of the item table that a step reads, so its cost does not grow with the catalog:
    Adam without momentum, one second moment a row, weight decay in the steps that read a row. `auto` takes it for
    catalogs of at least 50,000 items, unless the loss reads them all. Tables of fields with so many rows are treated so, too, unless
    it is `dense`."""


class ExampleSettings(Settings):
    """What a step learns from."""

    name: Literal["prefixes", "random-cut", "session-parallel"] = "prefixes"
    """`prefixes` trains the positions of a window in one encoder pass; `random-cut` is ComiRec's: one cut a user;
    `session-parallel` is GRU4Rec's: whole sessions, a few events a step, for encoders with a state."""
    batch_size: int = Field(64, ge=1)
    """Windows a step (`prefixes`), users a step (`random-cut`) or slots (`session-parallel`)."""
    unroll: int = Field(10, ge=1)
    """`session-parallel`: events a slot reads a step, which is also how far gradients reach back. The original has 1."""
    least_history: int = Field(1, ge=1)
    """`prefixes`: positions with a shorter history are not trained, except in windows that have no other. Users are
    served with their whole window, so short prefixes of long histories teach what is rarely asked."""
    gap: float = Field(0.0, ge=0)
    """`prefixes`: a target comes at least so much after what is known, in seconds or the log's own unit. Lists that are
    made at night are for the next visit; in a log of sessions the next event is mostly the next click of this one."""
    horizon: int = Field(1, ge=1)
    """The target of a position is drawn from so many events that follow it; 1 is the next one. Where lists are judged
    by what a user does over weeks, the next event alone is too narrow a lesson."""
    horizon_from: float = Field(0.0, ge=0, le=1)
    """The share of the training's steps after which the targets lie within `horizon`; before, they are the next events. What
    comes next is the sharper teacher of what items are, so it is learned first."""
    newest: float = Field(0.0, ge=0)
    """`prefixes`: only events of so much time before the end of training are targets, in seconds or the log's own unit;
    histories reach back as far as ever. 0 takes all. What a warm start has to learn is what is new."""

    labels: Literal["true", "shuffled"] = "true"
    """`shuffled` is a test of the pipeline and trains nothing of use: every target is the item of another training event, drawn
    by seed. What comes next then follows popularity alone, and so does a model, unless it sees its test targets somewhere."""

    @model_validator(mode="after")
    def _times_are_heeded(self) -> "ExampleSettings":
        for name in ("gap", "newest"):
            if getattr(self, name) and self.name != "prefixes":
                raise ValueError(f"examples.{name} needs examples.name = 'prefixes', not '{self.name}'")
        return self


class TrainSettings(Settings):
    """How long, on what, and how often to look."""

    loss: LossSettings = LossSettings()
    steps: int = Field(2000, ge=1)
    examples: ExampleSettings = ExampleSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    accumulate: int = Field(1, ge=1)
    """Parts that a step's windows are taken in, one after the other: memory for one part, the gradient of all."""
    sharding: Literal["replicated", "rows"] = "replicated"
    """Of several processes: `replicated` holds the whole item table in each of them, `rows` a share of its rows, so that its
    memory is divided among them and only what a step reads travels. Needs the row-wise item table; the weights are the same."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the products with the catalog; weights, sums and everything else stay float32."""
    validate_every: int = Field(200, ge=1)
    patience: int = Field(5, ge=0)
    """Validations without a new best before training stops; 0 never stops early."""
    validation_users: int = Field(2000, ge=1)
    checkpoint_every: int = Field(500, ge=1)
    start_from: str = ""
    """A trained model to begin with, by the path of its directory or its id in the workspace: old items keep their
    vectors, new ones and the optimizer start afresh. The model's identity takes the place of this name."""
    warm_steps: int = Field(0, ge=0)
    """`steps` of a training that starts from a model; 0 for as many as one from fresh weights."""
    warm_newest: float = Field(0.0, ge=0)
    """`examples.newest` of a training that starts from a model; 0 for the same as from fresh weights."""

    @model_validator(mode="after")
    def _parts_fit(self) -> "TrainSettings":
        if self.optimizer.item_table == "row-wise" and self.loss.whole_catalog:
            raise ValueError(f"optimizer.item_table = 'row-wise' does not go with loss.name = '{self.loss.name}', which reads every item")
        if self.sharding == "rows" and self.loss.whole_catalog:
            raise ValueError(f"sharding = 'rows' does not go with loss.name = '{self.loss.name}', which reads every item in every step")
        if self.sharding == "rows" and self.optimizer.item_table == "dense":
            raise ValueError("sharding = 'rows' needs optimizer.item_table = 'row-wise': a dense table's gradient is one of all rows")
        if self.warm_newest and self.examples.name != "prefixes":
            raise ValueError(f"warm_newest needs examples.name = 'prefixes', not '{self.examples.name}'")
        return self

    def in_effect(self) -> "TrainSettings":
        """As this training is done: what holds for warm starts put in its place, or left out. The same for all that train the same."""
        changed: dict[str, object] = {"warm_steps": 0, "warm_newest": 0.0}
        if self.start_from:
            newest = self.warm_newest or self.examples.newest
            changed |= {"steps": self.warm_steps or self.steps, "examples": self.examples.model_copy(update={"newest": newest})}
        return self.model_copy(update=changed)
