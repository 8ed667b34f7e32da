"""JSON that says itself whether it is whole: its first value is the sha256 of its text, that value left blank."""

import hashlib
import json
from pathlib import Path
from typing import TypeVar

from retrieval.core.secrets import without_secrets
from retrieval.core.settings import Settings

_BLANK = "0" * 64
SealedT = TypeVar("SealedT", bound="Sealed")


class Sealed(Settings):
    """Base of what is written sealed. A flipped bit in a number would otherwise be read as another number."""

    seal: str = _BLANK
    """Filled in by `sealed_text`."""


class BrokenSealError(ValueError):
    """A text is not the one that was sealed; `found` and `expected` are the hashes of both."""

    def __init__(self, found: str, expected: str) -> None:
        self.found, self.expected = found, expected
        super().__init__(f"sha256 {found[:12]}, expected {expected[:12]}")


def sealed_text(value: Sealed) -> str:
    """The value as JSON with its seal."""
    plain = without_secrets(value.model_copy(update={"seal": _BLANK}).model_dump(mode="json"))
    blank = json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False)
    return blank.replace(_BLANK, _hash(blank), 1)


def read_sealed(cls: type[SealedT], path: Path) -> SealedT:
    """Read what `sealed_text` gave.

    Raises:
        ValueError: it is not JSON of this type, or not the text that was sealed (`BrokenSealError`).
        OSError: it cannot be read.
    """
    return parse_sealed(cls, path.read_bytes())


def parse_sealed(cls: type[SealedT], content: bytes) -> SealedT:
    """The same of bytes. Raises ValueError as `read_sealed`."""
    text = content.decode("utf-8")
    value = cls.model_validate_json(text)
    if not holds(text, value.seal):
        raise BrokenSealError(_unsealed(text, value.seal), value.seal)
    return value


def holds(text: str, seal: str) -> bool:
    """Whether a text is the one that was sealed; one without a seal is."""
    return not seal or _unsealed(text, seal) == seal


def _unsealed(text: str, seal: str) -> str:
    return _hash(text.replace(seal, _BLANK, 1))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
