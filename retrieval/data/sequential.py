"""How much the order of a log says: next items by what followed before, in true order against shuffled histories.

The share of steps a -> b where b is among the ten items that most often followed a among other users' steps. A shuffled history
holds the same items, so that what is left of the rate then is what users' taste and popularity say; what is lost is
order. Half of the users give the counts and the other half is asked, so that no step predicts itself.
(The shuffle test of Woolridge, Wilner and Glick, 2021, and Klenitskiy et al., 2024, with a first-order Markov chain in place
of a network.)
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.core.seeds import derive_seed
from retrieval.data.sequences import SequenceDataset
from retrieval.data.splits import Positions, Split, ranges

_MOST_EVENTS = 1_000_000
_AMONG = 10
_NORMAL = 1.959963984540054
Rates = NDArray[np.float64]


def sequential(split: Split, sequences: SequenceDataset, n_items: int, seed: int = 0) -> dict[str, Any]:
    """Rates in true and shuffled order, their difference with a 95 % interval (normal, over users), and what that means.

    Of training histories with two events or more, at most a million events of users drawn by seed: time and memory do not
    grow with the log. No rates where fewer than two such users are in either half.
    """
    rng = np.random.default_rng(derive_seed(seed, "sequential"))
    users = _some_users(split, rng)
    positions, owner = ranges(sequences.offsets[:-1][users], split.train_end[users])
    items = np.asarray(sequences.items[positions]).astype(np.int64)
    shuffled = items[np.lexsort((rng.random(len(items)), owner))]
    asked = np.arange(len(users)) % 2 == 1
    if asked.sum() < 2:
        return {"users": 0, "words": "Too few users have two training events to say whether their order matters."}
    rates = [_hit_rates(each, owner, asked, n_items) for each in (items, shuffled)]
    return _summary(*rates)


def _some_users(split: Split, rng: np.random.Generator) -> Positions:
    users = rng.permutation(np.flatnonzero(split.train_end >= 2))
    # The first users of a random order, but a user who alone has more events than the limit is no reason to take none.
    return users[: max(4, int(np.searchsorted(np.cumsum(split.train_end[users]), _MOST_EVENTS)))]


def _hit_rates(items: Positions, owner: Positions, asked: NDArray[np.bool_], n_items: int) -> Rates:
    """Of each asked user the share of steps that the others' steps predict, float64."""
    step = np.flatnonzero(owner[1:] == owner[:-1])
    keys, of = items[step] * n_items + items[step + 1], owner[step]
    likely = _successors(keys[~asked[of]], n_items)
    keys, of = keys[asked[of]], of[asked[of]]
    hits = np.isin(keys, likely)
    rates: Rates = (np.bincount(of, hits, len(asked)) / np.maximum(np.bincount(of, minlength=len(asked)), 1))[asked]
    return rates


def _successors(keys: Positions, n_items: int) -> Positions:
    """The pairs a * N + b where b is among the items that followed a most often, ties by item."""
    pairs, counts = np.unique(keys, return_counts=True)
    order = np.lexsort((pairs, -counts, pairs // n_items))
    first = pairs[order] // n_items
    start = np.flatnonzero(np.diff(first, prepend=-1))
    rank = np.arange(len(first)) - np.repeat(start, np.diff(start, append=len(first)))
    return pairs[order][rank < _AMONG]


def _summary(true: Rates, shuffled: Rates) -> dict[str, Any]:
    lost = true - shuffled
    error = _NORMAL * float(lost.std(ddof=1)) / math.sqrt(len(lost))
    mean, rate = float(lost.mean()), float(true.mean())
    low, high = mean - error, mean + error
    figures = {"hit_rate": rate, "shuffled": float(shuffled.mean()), "difference": mean, "low": low, "high": high}
    return {
        "users": len(lost),
        "among": _AMONG,
        **{name: round(value, 6) for name, value in figures.items()},
        "words": _words(low, high, mean, rate),
    }


def _words(low: float, high: float, mean: float, rate: float) -> str:
    if low <= 0:
        return (
            "The order of a history says nothing that can be shown: shuffling it loses no hits. A model without order loses nothing here."
        )
    share = mean / rate
    strength = "strongly" if share >= 0.5 else "clearly" if share >= 0.2 else "a little"
    return (
        f"The log is {strength} sequential: of the next items that the item before predicts, shuffling the histories loses"
        f" {100 * share:.0f} % ({100 * mean:.2f} points, interval {100 * low:.2f} to {100 * high:.2f})."
    )
