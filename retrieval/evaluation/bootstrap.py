"""Percentile bootstrap over users (Efron 1979): how far a mean moves when other users had been drawn.

Resampling is multinomial and exact. It is never done user by user: a block of users gets a matrix of counts
[resamples, block], and one matrix product adds the block to every resample and every metric at once, so memory is
bounded whatever the number of users.
"""

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from retrieval.core.seeds import derive_seed
from retrieval.core.settings import Settings

Values = npt.NDArray[np.float64]
_CELLS = 1 << 22


class Interval(Settings):
    """A mean over users and the ends of its interval; None where no user has a value."""

    mean: float | None
    low: float | None = None
    high: float | None = None


def intervals(values: Values, *, resamples: int, confidence: float, seed: int) -> list[Interval]:
    """Means of the columns of `values` float64[U, M] with percentile intervals; NaN means the user has no value.

    The same values, settings and seed give the same interval on every machine, up to rounding.
    """
    valid = ~np.isnan(values)
    means = _ratio(np.where(valid, values, 0.0).sum(axis=0), valid.sum(axis=0))
    drawn = _resampled_means(values, valid, resamples, seed)
    tail = (1.0 - confidence) / 2.0
    low, high = (_quantile(drawn, share) for share in (tail, 1.0 - tail))
    return [Interval(mean=_number(m), low=_number(lo), high=_number(hi)) for m, lo, hi in zip(means, low, high, strict=True)]


def _resampled_means(values: Values, valid: npt.NDArray[np.bool_], resamples: int, seed: int) -> Values:
    """float64[resamples, M]: the mean of every metric in every resample."""
    sums, counts = np.zeros((2, resamples, values.shape[1]))
    for block, weights in _resampled_counts(len(values), resamples, seed):
        sums += weights @ np.where(valid[block], values[block], 0.0)
        counts += weights @ valid[block].astype(np.float64)
    return _ratio(sums, counts)


def _resampled_counts(n_users: int, resamples: int, seed: int) -> Iterator[tuple[slice, Values]]:
    """Blocks of users with float64[resamples, block]: how often each resample drew each user.

    How many draws fall into each block is drawn first, then the users inside it: together exactly multinomial.
    """
    rng = np.random.default_rng(derive_seed(seed, "bootstrap", n_users))
    size = max(1, _CELLS // resamples)
    edges = np.append(np.arange(0, n_users, size), n_users)
    shares = rng.multinomial(n_users, np.diff(edges) / max(1, n_users), size=resamples)
    for number, (start, stop) in enumerate(itertools.pairwise(edges)):
        yield slice(start, stop), _draws(rng, shares[:, number], stop - start)


def _draws(rng: np.random.Generator, draws: npt.NDArray[np.int64], width: int) -> Values:
    cells = np.repeat(np.arange(len(draws)) * width, draws)
    cells += rng.integers(0, width, len(cells))
    return np.bincount(cells, minlength=len(draws) * width).reshape(len(draws), width).astype(np.float64)


def _ratio(sums: npt.NDArray[np.float64], counts: npt.NDArray[np.generic]) -> Values:
    means: Values = np.divide(sums, counts, out=np.full(np.shape(sums), np.nan), where=np.asarray(counts) > 0)
    return means


def _quantile(drawn: Values, share: float) -> Values:
    """Column-wise quantile; a resample in which no user had a value says nothing and is left out."""
    ordered = np.sort(drawn, axis=0)
    last = (~np.isnan(drawn)).sum(axis=0) - 1
    place = share * np.maximum(last, 0)
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, np.maximum(last, 0))
    columns = np.arange(drawn.shape[1])
    between: Values = ordered[below, columns] + (place - below) * (ordered[above, columns] - ordered[below, columns])
    return between


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
