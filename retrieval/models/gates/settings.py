"""Settings of gates, free of torch. Each says which paper's form it is; the defaults let everything through at first."""

from typing import Annotated, Literal

from pydantic import Field

from retrieval.core.settings import Settings

Activation = Literal["linear", "relu", "sigmoid", "2-sigmoid", "tanh"]


class NoGate(Settings):
    """Fields as they are."""

    name: Literal["none"] = "none"


class SENetSettings(Settings):
    """SENet over fields (FiBiNET: Huang et al., RecSys 2019, section 3.3)."""

    name: Literal["senet"] = "senet"
    squeeze: Literal["mean", "max", "learned"] = "mean"
    """What a field's vector comes to: the mean of its numbers as in the paper, the largest, or a learned sum of them."""
    reduction: int = Field(3, ge=1)
    """The excitation's hidden layer has one in so many of the fields, one at least."""
    excitation: Literal["relu", "sigmoid", "2-sigmoid"] = "2-sigmoid"
    """The paper's ReLU can shut a field for ever; two sigmoids let every field through at first."""
    weights: Literal["field-wise", "element-wise"] = "field-wise"
    """A weight a field, or a weight a number."""


class GateNetSettings(Settings):
    """GateNet (Huang et al., 2020): a gate from the field's own vector, and one over hidden layers."""

    name: Literal["gatenet"] = "gatenet"
    embedding: Literal["bit-wise", "vector-wise", "none"] = "bit-wise"
    """A gate for every number of a field's vector, one for all of it, or none."""
    shared: bool = False
    """One gate's weights for all fields; the paper finds a gate a field better."""
    hidden: bool = False
    """Gate the tower's hidden layers, `layers` of them: a * act(W a). Both gates together add nothing, says the paper."""
    activation: Activation = "2-sigmoid"
    """Linear and sigmoid were best in the paper; two sigmoids are a sigmoid that lets everything through at first."""


class PosoSettings(Settings):
    """POSO (Dai et al., 2022): the user's module is scaled by gates that see nothing but who the user is.

    x' = x + W (2 * sigmoid(gate(keys)) * module(x)), x the encoder's interests; 2 keeps the scale, for a gate begins at one half.
    Differs from the paper, in which personalised layers replace those of the network: here they are a residual behind it.
    """

    form: Literal["none", "mlp", "attention", "mmoe"] = "none"
    """Which module follows the encoder: a layer, attention among the interests, or a mixture of experts."""
    keys: tuple[str, ...] = Field(("activity",), min_length=1)
    """What the gates see: user fields, and `activity`, the bucketised number of events. Few: every feature is worse than none."""
    hidden: int = Field(32, ge=1, le=4096)
    """Width of the gates' hidden layer, and of the module's."""
    experts: int = Field(4, ge=1, le=64)
    """`mmoe`: how many; `attention`: parts that the values are a gated sum of."""
    heads: int = Field(2, ge=1, le=64)
    """`attention`: heads; they divide the dimension."""


GateSettings = Annotated[NoGate | SENetSettings | GateNetSettings, Field(discriminator="name")]
