"""Bootstrap over users (Efron 1979): how far a mean moves when other users had been drawn.

A resample gives every user a Poisson(1) weight (Hanley and MacGibbon 2006; Chamandy et al. 2012), which is what drawing
users with replacement comes to, and the mean is the weighted one. Weights are a function of seed, resample and the user's
place, so users may come in blocks of any size: a matrix product adds a block to every resample and metric at once, and memory does
not grow with the users. Two systems measured on the same users are paired by their differences.

Ends are bias-corrected and accelerated (BCa; Efron 1987): hits are rare and skewed, and plain percentiles of a skewed mean
cover too little.
"""

from functools import cache
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

from retrieval.core.seeds import derive_seed
from retrieval.core.settings import Settings
from retrieval.evaluation.list_kernels import draw_weights
from retrieval.index.threads import over_chunks

Values = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
_CELLS: Final = 1 << 22
_NORMAL: Final = NormalDist()


class Interval(Settings):
    """A mean over users and the ends of its interval; None where no user has a value."""

    mean: float | None
    low: float | None = None
    high: float | None = None


class Bootstrap:
    """Means of some columns over users that come in blocks, and how sure they are.

    columns: number of metrics. resamples: weightings; memory is 16 bytes for each and column. seed: the same seed, users and order
    give the same intervals up to rounding, whatever the blocks.
    """

    def __init__(self, columns: int, resamples: int, seed: int, threads: int = 0) -> None:
        self._resamples, self._threads, self._seed = resamples, threads, derive_seed(seed, "bootstrap")
        self._sums, self._counts = np.zeros((2, resamples, columns))
        self._moments, self._users, self._valid = np.zeros((3, columns)), 0, np.zeros(columns, np.int64)
        self._shift = np.full(columns, np.nan)

    def add(self, values: Values) -> None:
        """Add users, `values` float64[B, M]; NaN means that the user has no value."""
        if not len(values):
            return
        valid = ~np.isnan(values)
        self._find_shift(values, valid)
        # Sums of what differs from one of the values: equal values have no rounding, and float32 is enough.
        shifted = np.where(valid, values - self._shift, 0.0)
        self._valid += valid.sum(axis=0)
        squares = shifted * shifted
        self._moments += [shifted.sum(axis=0), squares.sum(axis=0), np.einsum("um,um->m", squares, shifted)]
        kinds, which = _distinct_columns(valid)
        size = max(4, _CELLS // self._resamples)
        for start in range(0, len(values), size):
            block = slice(start, start + size)
            self._add(np.concatenate([shifted[block], kinds[block]], axis=1).astype(np.float32), which, self._users + start)
        self._users += len(values)

    def _add(self, block: npt.NDArray[np.float32], which: npt.NDArray[np.int64], first: int) -> None:
        weights = np.empty((self._resamples, len(block)), np.float32)
        over_chunks(draw_weights, self._resamples, self._threads, first, self._seed, poisson_table(), weights)
        found, columns = (weights @ block).astype(np.float64), self._sums.shape[1]
        self._sums += found[:, :columns]
        self._counts += found[:, columns:][:, which]

    def _find_shift(self, values: Values, valid: Mask) -> None:
        new = np.isnan(self._shift) & valid.any(axis=0)
        self._shift[new] = values[valid.argmax(axis=0)[new], np.flatnonzero(new)]

    @property
    def users(self) -> npt.NDArray[np.int64]:
        """How many users have a value, int64[M]."""
        return self._valid

    def means(self) -> Values:
        """float64[M], NaN where nobody has a value."""
        means: Values = _ratio(self._moments[0], self._valid) + self._shift
        return means

    def standard_errors(self) -> Values:
        """Of the means, float64[M]: the standard deviation over users by the root of their number; NaN below two users."""
        squares = self._moments[1] - _ratio(self._moments[0] ** 2, self._valid)
        errors: Values = np.sqrt(np.maximum(_ratio(squares, self._valid * (self._valid - 1)), 0.0))
        return errors

    def intervals(self, confidence: float) -> list[Interval]:
        """The mean of every column with its BCa interval."""
        drawn = _ratio(self._sums, self._counts)
        tail, centre = (1.0 - confidence) / 2.0, _ratio(self._moments[0], self._valid)
        ends = [_quantile(drawn, self._levels(drawn, centre, level)) + self._shift for level in (tail, 1.0 - tail)]
        return [Interval(mean=_number(m), low=_number(low), high=_number(high)) for m, low, high in zip(self.means(), *ends, strict=True)]

    def _levels(self, drawn: Values, centre: Values, level: float) -> Values:
        """Which quantile of the resampled means ends the interval, for each column (Efron 1987, equation 2.3)."""
        known = np.maximum((~np.isnan(drawn)).sum(axis=0), 1)
        below = ((drawn < centre).sum(axis=0) + 0.5 * (drawn == centre).sum(axis=0)) / known
        bias = np.array([_NORMAL.inv_cdf(min(max(share, 0.5 / count), 1 - 0.5 / count)) for share, count in zip(below, known, strict=True)])
        reach = bias + _NORMAL.inv_cdf(level)
        place = bias + reach / np.maximum(1.0 - self._acceleration() * reach, 1e-3)
        return np.array([_NORMAL.cdf(each) for each in place])

    def _acceleration(self) -> Values:
        """A sixth of the skewness of a user's pull on the mean, which for a mean is the skewness of the values by root n."""
        mean = _ratio(self._moments[0], self._valid)
        squares = self._moments[1] - self._valid * mean**2
        cubes = self._moments[2] - 3 * mean * self._moments[1] + 2 * self._valid * mean**3
        scale = 6.0 * np.maximum(squares, 0.0) ** 1.5
        return np.where(scale > 1e-300, np.nan_to_num(cubes) / np.where(scale > 1e-300, scale, 1.0), 0.0)


def intervals(values: Values, *, resamples: int, confidence: float, seed: int) -> list[Interval]:
    """Means of the columns of `values` float64[U, M] with BCa intervals; NaN means the user has no value."""
    bootstrap = Bootstrap(values.shape[1], resamples, seed)
    bootstrap.add(values)
    return bootstrap.intervals(confidence)


@cache
def poisson_table() -> npt.NDArray[np.uint8]:
    """uint8[65536]: the weight for each of so many equally likely draws; Poisson(1) to 1 in 65,536, cut at 8."""
    probabilities, probability = [], float(np.exp(-1.0))
    for weight in range(9):
        probabilities.append(probability)
        probability /= weight + 1
    edges = np.round(np.cumsum(probabilities) * 65_536).astype(np.int64)
    edges[-1] = 65_536
    return np.repeat(np.arange(9, dtype=np.uint8), np.diff(edges, prepend=0))


def _distinct_columns(valid: Mask) -> tuple[Mask, npt.NDArray[np.int64]]:
    """The distinct columns of a mask and which of them each column is: most metrics have a value for the same users."""
    packed = np.packbits(valid, axis=0)
    seen: dict[bytes, int] = {}
    which = np.array([seen.setdefault(packed[:, column].tobytes(), len(seen)) for column in range(valid.shape[1])], np.int64)
    first = np.array([int(np.flatnonzero(which == kind)[0]) for kind in range(len(seen))], np.int64)
    return valid[:, first], which


def _ratio(sums: npt.NDArray[np.float64], counts: npt.NDArray[np.generic]) -> Values:
    means: Values = np.divide(sums, counts, out=np.full(np.shape(sums), np.nan), where=np.asarray(counts) > 0)
    return means


def _quantile(drawn: Values, levels: Values) -> Values:
    """The quantile of each column at its level; a resample in which no user had a value says nothing and is left out."""
    ordered = np.sort(drawn, axis=0)
    last = (~np.isnan(drawn)).sum(axis=0) - 1
    place = levels * np.maximum(last, 0)
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, np.maximum(last, 0))
    columns = np.arange(drawn.shape[1])
    between: Values = ordered[below, columns] + (place - below) * (ordered[above, columns] - ordered[below, columns])
    return between


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
