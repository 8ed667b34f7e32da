"""Scores as probabilities: how often items of a score were hits, learned from lists whose answers are known.

Platt's sigmoid (Platt, 1999) or isotonic regression (Zadrozny and Elkan, 2002). Both never fall with the score, so the order of
a list stays what it was. Differs from Platt: hits are not smoothed, because there are many.
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64

from retrieval.core.settings import Settings
from retrieval.recall.pools import Lists

Method = Literal["platt", "isotonic"]
_BINS = 10
_KNOTS = 256


class ScoreProbabilities(Settings):
    """A rising piecewise linear function in the score, or in the score's sigmoid.

    scores, probabilities: the knots of `isotonic`. slope, intercept: of `platt`, the probability is
    1 / (1 + exp(-(slope * score + intercept))). popular: of items that no interest speaks for.
    """

    method: Method
    scores: tuple[float, ...] = ()
    probabilities: tuple[float, ...] = ()
    slope: float = 0.0
    intercept: float = 0.0
    popular: float = 0.0

    def of(self, scores: Float32[np.ndarray, "*s"], interest: Int32[np.ndarray, "*s"]) -> Float32[np.ndarray, "*s"]:
        """The probability of every score; -inf, where there is no item, stays."""
        if self.method == "isotonic":
            found = np.interp(scores, self.scores, self.probabilities)
        else:
            found = _sigmoid(self.slope * scores.astype(np.float64) + self.intercept)
        found = np.where(interest < 0, self.popular, found)
        return np.where(np.isneginf(scores), -np.inf, found).astype(np.float32)

    def of_lists(self, lists: Lists) -> Lists:
        """The same lists, scored by probability."""
        return Lists(lists.rows, self.of(lists.scores, lists.interest), lists.interest)


class CalibrationQuality(Settings):
    """On users that the function was not fitted on. error: mean distance of the probability from the share of hits, over tenths
    of the items by probability (expected calibration error); brier: mean squared distance from what happened; constant:
    the brier score of saying the overall share of hits for every item.
    """

    error: float
    brier: float
    constant: float


def fit_probabilities(
    method: Method, scores: Float64[np.ndarray, "m"], hits: Bool[np.ndarray, "m"], popular: float = 0.0
) -> ScoreProbabilities:
    """Fit on the items of lists and whether each was a hit; without both hits and misses it is their share everywhere.

    A score that says nothing, or the opposite, gives every item the same.
    """
    share = float(hits.mean()) if len(hits) else 0.0
    if share in (0.0, 1.0):
        return ScoreProbabilities(method="isotonic", scores=(0.0,), probabilities=(share,), popular=popular)
    return _isotonic(scores, hits, popular) if method == "isotonic" else _platt(scores, hits, popular)


# scikit-learn takes longer to import than most verbs take to run.


def _isotonic(scores: Float64[np.ndarray, "m"], hits: Bool[np.ndarray, "m"], popular: float) -> ScoreProbabilities:
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(y_min=0.0, y_max=1.0, increasing=True, out_of_bounds="clip").fit(scores, hits.astype(np.float64))
    knots = _thinned(fitted.X_thresholds_, fitted.y_thresholds_)
    return ScoreProbabilities(method="isotonic", scores=knots[0], probabilities=knots[1], popular=popular)


def _platt(scores: Float64[np.ndarray, "m"], hits: Bool[np.ndarray, "m"], popular: float) -> ScoreProbabilities:
    from sklearn.linear_model import LogisticRegression

    center, spread = float(scores.mean()), float(scores.std()) or 1.0
    line = LogisticRegression(C=np.inf).fit(((scores - center) / spread)[:, None], hits)
    slope = max(0.0, float(line.coef_[0, 0])) / spread
    share = float(hits.mean())
    intercept = float(line.intercept_[0]) - slope * center if slope else float(np.log(share / (1 - share)))
    return ScoreProbabilities(method="platt", slope=slope, intercept=intercept, popular=popular)


def _thinned(scores: np.ndarray, values: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """At most some hundred of the knots, evenly spread: more would be the noise of single items."""
    chosen = np.unique(np.linspace(0, len(scores) - 1, min(_KNOTS, len(scores))).astype(int))
    return tuple(map(float, scores[chosen])), tuple(map(float, values[chosen]))


def calibration_quality(
    method: Method, owners: Int64[np.ndarray, "m"], scores: Float64[np.ndarray, "m"], hits: Bool[np.ndarray, "m"]
) -> CalibrationQuality:
    """Fitted on every other user and measured on the others, both ways; owners: whose item each is, numbers without gaps."""
    found, even = np.empty(len(scores)), owners % 2 == 0
    for fold in (even, ~even):
        fitted = fit_probabilities(method, scores[~fold], hits[~fold])
        found[fold] = fitted.of(scores[fold].astype(np.float32), np.zeros(int(fold.sum()), np.int32))
    return CalibrationQuality(
        error=_calibration_error(found, hits),
        brier=float(np.mean((found - hits) ** 2)) if len(hits) else 0.0,
        constant=float(hits.mean() * (1 - hits.mean())) if len(hits) else 0.0,
    )


def _calibration_error(found: np.ndarray, hits: np.ndarray) -> float:
    parts = np.array_split(np.argsort(found, kind="stable"), _BINS)
    return float(sum(len(part) * abs(found[part].mean() - hits[part].mean()) for part in parts if len(part)) / max(1, len(found)))


def _sigmoid(values: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(values))
    found: np.ndarray = np.where(values >= 0, 1.0, small) / (1.0 + small)
    return found
