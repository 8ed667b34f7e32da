"""From a recipe's word to a gate over fields."""

from retrieval.models.gates.abstract import AbstractFieldGate
from retrieval.models.gates.gatenet import EmbeddingGate
from retrieval.models.gates.senet import SENet
from retrieval.models.gates.settings import GateSettings, NoGate, SENetSettings


def build_gate(settings: GateSettings, fields: int, dimension: int) -> AbstractFieldGate | None:
    """The gate over F fields of D numbers; None where fields pass as they are."""
    if isinstance(settings, NoGate):
        return None
    if isinstance(settings, SENetSettings):
        return SENet(fields, dimension, settings)
    return None if settings.embedding == "none" else EmbeddingGate(fields, dimension, settings)
