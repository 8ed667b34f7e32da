"""Which fields a model reads, and how; free of torch."""

from pydantic import Field, model_validator

from retrieval.core.settings import Settings
from retrieval.models.gates.settings import GateNetSettings, GateSettings, NoGate, PosoSettings


class FieldsSettings(Settings):
    """Fields by the names that [data] gives them. Without any a model knows ids alone."""

    items: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    """`activity` is one of them everywhere: the bucketised number of the user's events."""
    events: tuple[str, ...] = ()
    gate: GateSettings = NoGate()
    """Over the fields of each tower; an item's id is one of the item tower's fields."""
    layers: int = Field(0, ge=0, le=8)
    """Layers with ReLU over all fields of a tower, added to their sum; their last one begins at zero."""
    id_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the items of a step whose id is left out in training, so that fields alone make a good vector. What has no
    training event is served so."""
    history_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of the examples whose history is left out in training, so that users without events get interests from fields."""
    poso: PosoSettings = PosoSettings()

    @property
    def reads_users(self) -> bool:
        """Whether interests take more than events, from fields or by POSO."""
        return bool(self.users) or self.poso.form != "none"

    @model_validator(mode="after")
    def _settings_are_read(self) -> "FieldsSettings":
        for side, names in (("items", self.items), ("users", self.users), ("events", self.events), ("poso.keys", self.poso.keys)):
            repeated = {name for name in names if names.count(name) > 1}
            if repeated:
                raise ValueError(f"{side} names '{min(repeated)}' twice")
        gate = self.gate
        if not (isinstance(gate, NoGate) or self.items or self.users or self.events):
            raise ValueError(f"gate.name = '{gate.name}' needs fields to stand over")
        if self.layers and not (self.items or self.users or self.events):
            raise ValueError(f"layers = {self.layers} need fields to read")
        if isinstance(gate, GateNetSettings) and gate.hidden and self.layers < 2:
            raise ValueError(f"gate.hidden stands between layers: layers = {self.layers} has no place for it, set 2 at least")
        if isinstance(gate, GateNetSettings) and gate.embedding == "none" and not gate.hidden:
            raise ValueError("gate.embedding = 'none' without gate.hidden gates nothing; use gate.name = 'none'")
        if self.id_dropout and not self.items:
            raise ValueError("id_dropout needs items: without their fields nothing is left of an item")
        if self.history_dropout and not self.users:
            raise ValueError("history_dropout needs users: without their fields nothing is left of a user")
        return self
