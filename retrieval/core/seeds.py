"""Randomness as a pure function of names and numbers: no global state, no re-seeding."""

import hashlib


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from any parts, such as (7, "negatives", step); the same on every platform."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
