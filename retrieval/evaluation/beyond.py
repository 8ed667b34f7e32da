"""Figures of all lists together: how much of the catalog they show, and how evenly."""

from collections.abc import Sequence
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from retrieval.evaluation import kernels
from retrieval.evaluation.bootstrap import Interval
from retrieval.evaluation.certainty import p_values
from retrieval.evaluation.judgements import JudgedLists
from retrieval.index.threads import over_chunks

_GROUPS: Final = 20
_CELLS: Final = 1 << 26
Values = npt.NDArray[np.float64]
Without = Sequence[float | None]


def coverage(exposures: npt.NDArray[np.int64]) -> float:
    """Share of the catalog that stands in at least one list."""
    return float((exposures > 0).mean())


def gini(exposures: npt.NDArray[np.int64]) -> float | None:
    """Gini coefficient of exposure over the catalog: 0 all items equally often, near 1 one item only.

    None when nothing was shown.
    """
    total, n_items = int(exposures.sum()), len(exposures)
    if total == 0:
        return None
    order = np.arange(1, n_items + 1)
    weighted = float((order * np.sort(exposures)).sum())
    return 2.0 * weighted / (n_items * total) - (n_items + 1) / n_items


class Exposure:
    """In how many lists each item of a catalog stands, by cut-off; lists come in blocks.

    Neither figure is a mean over users, and a bootstrap draws fewer different users and so sees less of the catalog. The
    intervals are those of the delete-a-group jackknife instead (Kott 2001): users are dealt into 20 groups, and the figure is
    taken without each of them. The groups go by the place of a user, so those of two systems on the same users are the same.
    A catalog so large that 20 counts an item do not fit has no intervals.
    """

    def __init__(self, items: int, cutoffs: tuple[int, ...], threads: int = 0) -> None:
        self._cutoffs, self._threads = np.asarray(cutoffs, np.int64), threads
        groups = _GROUPS if _GROUPS * items * len(cutoffs) <= _CELLS else 1
        self._counts = np.zeros((groups, len(cutoffs), items), np.int32)

    def add(self, judged: JudgedLists) -> None:
        """Count the lists of a block."""
        over_chunks(kernels.expose, len(self._counts), self._threads, judged.items, judged.first, self._cutoffs, self._counts)

    def figures(self, confidence: float) -> dict[str, Interval]:
        """Coverage and Gini at every cut-off."""
        return {name: _interval(figure, without, confidence, (0.0, 1.0)) for name, (figure, without) in self._taken.items()}

    def without(self) -> dict[str, tuple[float, ...]]:
        """The figures without each of the groups, those of two systems side by side; nothing where one cannot be taken."""
        return {name: tuple(known) for name, (_, without) in self._taken.items() if (known := _all_known(without))}

    @cached_property
    def _taken(self) -> dict[str, tuple[float | None, Without]]:
        """By name the figure of all lists, and those without each group; asked for when all lists are counted."""
        found: dict[str, tuple[float | None, Without]] = {}
        shown = np.zeros(self._counts.shape[::2], np.int64)
        for column, n in enumerate(self._cutoffs):
            shown += self._counts[:, column]
            total = shown.sum(axis=0)
            without = total - shown if len(shown) > 1 else shown[:0]
            found[f"coverage@{n}"] = coverage(total), [coverage(each) for each in without]
            found[f"gini@{n}"] = gini(total), [gini(each) for each in without]
        return found


def paired(difference: float, first: Sequence[float], second: Sequence[float], confidence: float) -> tuple[Interval, float | None]:
    """The difference of a figure of two systems on the same users, with its interval and the p of no difference.

    first, second: the figures of each system without each group. What a group adds to both cancels out.
    """
    without = [one - other for one, other in zip(first, second, strict=True)]
    interval = _interval(difference, without, confidence, (-1.0, 1.0))
    return interval, p_values([difference], [_error(without)], [len(without)])[0]


def _all_known(without: Without) -> list[float]:
    known = [each for each in without if each is not None]
    return known if len(known) == len(without) else []


def _error(without: Sequence[float]) -> float:
    """The standard error of the delete-a-group jackknife."""
    groups = len(without)
    return float(np.sqrt((groups - 1) / groups * np.square(np.array(without) - np.mean(without)).sum()))


def _interval(figure: float | None, without: Without, confidence: float, bounds: tuple[float, float]) -> Interval:
    """The figure of all groups with Student's t interval from the figures without each; none where one cannot be taken."""
    known = _all_known(without)
    if figure is None or not known:
        return Interval(mean=figure)
    reach = float(stdtrit(len(known) - 1, 0.5 + confidence / 2)) * _error(known)
    return Interval(mean=figure, low=max(figure - reach, bounds[0]), high=min(figure + reach, bounds[1]))
