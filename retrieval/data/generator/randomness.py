"""Random streams that depend on names and block numbers only, never on who asks first."""

import math

import numpy as np

from retrieval.core.seeds import derive_seed

DAY = 86_400


def stream(seed: int, purpose: str, block: int = 0) -> np.random.Generator:
    """The Philox stream of one purpose and block: the same whatever the threads and the order of the blocks."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([derive_seed(seed, purpose), block])))


def scattered(index: np.ndarray, count: int, seed: int) -> np.ndarray:
    """A bijection of 0..count-1 in no order that means anything: `index` times a number coprime to `count`, shifted.

    It needs no table, so that the ids of a billion users cost nothing.
    """
    step = max(1, round(count * 0.618))
    while math.gcd(step, count) != 1:
        step += 1
    return (index.astype(np.int64) * step + seed % count) % count


def daily_rhythm(seconds: np.ndarray) -> np.ndarray:
    """Bend evenly spread times towards midday, keeping their order and every midnight where it is (float64 seconds)."""
    return seconds + 0.8 * DAY / (2 * np.pi) * np.sin(2 * np.pi * seconds / DAY)
