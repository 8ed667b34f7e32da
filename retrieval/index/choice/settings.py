"""What an index is chosen by."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from retrieval.core.settings import Settings

_AMOUNT = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]+)\s*")
_BYTES = {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


def _amount(units: dict[str, float]) -> Any:
    def read(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        found = _AMOUNT.fullmatch(value)
        if found is None or found[2] not in units:
            raise ValueError(f"expected a number and a unit: {', '.join(units)}")
        return float(found[1]) * units[found[2]]

    return BeforeValidator(read)


Seconds = Annotated[float, _amount(_SECONDS)]
"""A number, or a text such as "5ms"."""


class ChoiceSettings(Settings):
    """By what an index is chosen; `index.factory` and its knobs are then not read.

    target_recall: share of the exact list that an index must find, to be held by the lower 95 % bound over users; 0: no choice.
    max_memory: bytes of the index ("2GB"), 0 for no limit; the item vectors themselves stay mapped beside it.
    max_latency: seconds ("5ms") that 95 of 100 single users may wait for their search, 0 for no limit.
    n: length of the list that is judged. users: how many users judge.
    """

    target_recall: float = Field(default=0.0, ge=0.0, le=1.0)
    max_memory: Annotated[float, _amount(_BYTES)] = Field(default=0.0, ge=0.0)
    max_latency: Seconds = Field(default=0.0, ge=0.0)
    n: int = Field(default=100, ge=1)
    users: int = Field(default=2000, ge=1)
