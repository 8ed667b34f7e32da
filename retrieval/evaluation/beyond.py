"""Figures of all lists together: how much of the catalog they show, and how evenly."""

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from retrieval.evaluation import kernels
from retrieval.evaluation.bootstrap import Interval
from retrieval.evaluation.judgements import JudgedLists
from retrieval.index.threads import over_chunks

_GROUPS: Final = 20
_CELLS: Final = 1 << 26
Values = npt.NDArray[np.float64]


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
    taken without each of them. A catalog so large that 20 counts an item do not fit has no intervals.
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
        found: dict[str, Interval] = {}
        shown = np.zeros(self._counts.shape[::2], np.int64)
        for column, n in enumerate(self._cutoffs):
            shown += self._counts[:, column]
            total = shown.sum(axis=0)
            without = total - shown if len(shown) > 1 else shown[:0]
            found[f"coverage@{n}"] = _jackknifed(coverage(total), [coverage(each) for each in without], confidence, (0.0, 1.0))
            found[f"gini@{n}"] = _jackknifed(gini(total), [gini(each) for each in without], confidence, (0.0, 1.0))
        return found


def _jackknifed(
    figure: float | None, without: list[float | None] | list[float], confidence: float, bounds: tuple[float, float]
) -> Interval:
    """The figure of all groups with Student's t interval from the figures without each; none where one cannot be taken."""
    known = [each for each in without if each is not None]
    if figure is None or not known or len(known) < len(without):
        return Interval(mean=figure)
    groups = len(known)
    error = np.sqrt((groups - 1) / groups * np.square(np.array(known) - np.mean(known)).sum())
    reach = float(stdtrit(groups - 1, 0.5 + confidence / 2) * error)
    return Interval(mean=figure, low=max(figure - reach, bounds[0]), high=min(figure + reach, bounds[1]))
