"""The last day of a log in numbers, to be laid beside the last good one."""

import datetime as dt
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from retrieval.core.artifacts import Artifact
from retrieval.core.settings import Settings
from retrieval.data.dataset import Dataset

_DAY, _HOUR = 86_400, 3_600


class DayProfile(Settings):
    """Events of a day (UTC), or of a whole log that has an order and no times; users and items that took part.

    `counts`: events by hour, by kind and by primary category, as far as the log knows them. Of the whole log: `total_events`, and
    `quarantined`, its rows in quarantine by rule, those left out that the contract forgives.
    """

    day: str
    events: int
    users: int
    items: int
    total_events: int
    quarantined: dict[str, int]
    counts: dict[str, dict[str, int]]


def end_of(day: dt.date) -> dt.datetime:
    """The first moment after a day, UTC."""
    return dt.datetime.combine(day, dt.time(), dt.UTC) + dt.timedelta(days=1)


def profile(day: dt.date, dataset: Dataset, artifact: Artifact) -> DayProfile:
    """The profile of a day. Memory: a few bytes an event of the log."""
    timed = artifact.summary["time"]["unit"] == "seconds"
    places = _on(day, dataset.sequences.times) if timed else np.arange(dataset.sequences.n_events)
    items = dataset.sequences.items[places]
    counts = {"category": _categories(items, dataset)} | ({"hour": _hours(dataset.sequences.times[places])} if timed else {})
    if dataset.sequences.kinds is not None:
        counts["kind"] = _named(np.bincount(dataset.sequences.kinds[places]), artifact.summary["kinds"])
    return DayProfile(
        day=day.isoformat(),
        events=len(places),
        users=len(np.unique(np.searchsorted(dataset.sequences.offsets, places, side="right"))),
        items=len(np.unique(items)),
        total_events=dataset.sequences.n_events,
        quarantined=_quarantined(artifact),
        counts=counts,
    )


def rows_after(day: str, dataset: Dataset, artifact: Artifact) -> int:
    """About how many rows of the log lie after a day, "" for all of them: its events, and the share of rows that became events."""
    summary, times = artifact.summary, dataset.sequences.times
    if not day or summary["time"]["unit"] != "seconds":
        return int(summary["rows"])
    after = int((times >= int(end_of(dt.date.fromisoformat(day)).timestamp())).sum())
    return round(after * int(summary["rows"]) / max(1, len(times)))


def drift(night: Mapping[str, int], good: Mapping[str, int]) -> float:
    """How far two days' shares lie apart: Jensen-Shannon divergence (Lin 1991) in bits, less what chance alone gives.

    Two samples of n and m events from one distribution over k values diverge by about (k - 1) (1/n + 1/m) / (8 ln 2) bits; a day with
    few events is not called changed for having few.
    """
    names = sorted(night.keys() | good.keys())
    counts = np.array([[each.get(name, 0) for name in names] for each in (night, good)], dtype=np.float64)
    totals = counts.sum(axis=1)
    if not totals.all():
        return float(totals.any())
    shares = counts / totals[:, None]
    found = _entropy(shares.mean(axis=0)) - (_entropy(shares[0]) + _entropy(shares[1])) / 2
    chance = (len(names) - 1) * (1 / totals).sum() / (8 * np.log(2))
    return float(np.clip(found - chance, 0.0, 1.0))


def _entropy(shares: NDArray[np.float64]) -> float:
    positive = shares[shares > 0]
    return float(-(positive * np.log2(positive)).sum())


def _quarantined(artifact: Artifact) -> dict[str, int]:
    forgiven = {"duplicate"} if artifact.manifest.settings["data"]["contract"]["duplicates"] == "drop" else set()
    return {rule: count for rule, count in artifact.summary["quarantine"].get("interactions", {}).items() if rule not in forgiven}


def _on(day: dt.date, times: NDArray[np.int64]) -> NDArray[np.int64]:
    end = int(end_of(day).timestamp())
    return np.flatnonzero((times >= end - _DAY) & (times < end))


def _hours(times: NDArray[np.int64]) -> dict[str, int]:
    return _named(np.bincount(times % _DAY // _HOUR, minlength=24), [f"{hour:02d}" for hour in range(24)])


def _categories(items: NDArray[np.int32], dataset: Dataset) -> dict[str, int]:
    codes, names = dataset.catalog.primary_category, dataset.catalog.category_names
    return _named(np.bincount(codes[items] + 1, minlength=len(names) + 1), ["", *names])


def _named(counts: NDArray[np.int64], names: list[str]) -> dict[str, int]:
    return {name: int(count) for name, count in zip(names, counts, strict=False) if count}
