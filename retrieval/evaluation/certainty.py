"""How small a difference a set of users can show, and which of many differences are sure."""

from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np
from scipy.special import stdtr


def detectable(standard_errors: Mapping[str, float], confidence: float, power: float) -> dict[str, float]:
    """The smallest true difference of each metric that a test at `confidence` sees with the chance `power`.

    (z of confidence, two-sided, + z of power) standard errors of the difference. Of one system's own errors it is what a
    comparison with another one would show whose values correlate with these by a half, which is little for two
    recommenders; a comparison knows the errors of its differences and says it better.
    """
    normal = NormalDist()
    reach = normal.inv_cdf(0.5 + confidence / 2) + normal.inv_cdf(power)
    return {name: reach * float(error) for name, error in standard_errors.items() if np.isfinite(error)}


def detectable_sentence(metric: str, difference: float, power: float) -> str:
    """In words, with shares between 0 and 1 in points: "This set can show a difference of 0.4 points of recall@50 (power 80 %)."."""
    share = not metric.startswith(("novelty", "entropy", "union_size", "calibration_kl"))
    amount = f"{_two_digits(100 * difference)} points" if share else _two_digits(difference)
    return f"This set can show a difference of {amount} of {metric} ({100 * power:g} % power)."


def _two_digits(value: float) -> str:
    """Two figures that count: 12, 1.2, 0.12, 0.012."""
    if value == 0.0:
        return "0"
    digits = max(0, 1 - int(np.floor(np.log10(abs(value)))))
    return f"{value:.{digits}f}"


def p_values(means: Sequence[float | None], standard_errors: Sequence[float], users: Sequence[int]) -> list[float | None]:
    """Two-sided p of the paired t test of a zero difference; None where fewer than two users have a value."""
    return [_p_value(mean, error, count) for mean, error, count in zip(means, standard_errors, users, strict=True)]


def _p_value(mean: float | None, error: float, users: int) -> float | None:
    if mean is None or users < 2:
        return None
    if error == 0.0:
        return 1.0 if mean == 0.0 else 0.0
    return float(2.0 * stdtr(users - 1, -abs(mean) / error))


def holm(values: Mapping[str, float | None], first: str) -> dict[str, float | None]:
    """Values of p corrected for their number by Holm's steps (1979), which hold under any dependence between metrics.

    `first` was named before anything was measured and is tested alone, at alpha by itself; the others share another alpha. The
    chance that any of all is wrongly called different is therefore up to 2 alpha, and at most alpha for the one that decides.
    """
    known = sorted((value, name) for name, value in values.items() if value is not None and name != first)
    adjusted, largest = {name: None if name != first else value for name, value in values.items()}, 0.0
    for place, (value, name) in enumerate(known):
        largest = max(largest, min(1.0, value * (len(known) - place)))
        adjusted[name] = largest
    return adjusted
