"""Clean datasets of every protocol, for tests that plant one leak in each."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from retrieval.data.catalog import Catalog
from retrieval.data.dataset import Dataset
from retrieval.data.sequences import SequenceDataset
from retrieval.data.settings import SplitSettings
from retrieval.data.splits import PARTS, ground_truth, make_split, training_counts
from retrieval.evaluation.leaks.check import check_leaks
from retrieval.evaluation.leaks.datasets import evidence_of
from retrieval.evaluation.leaks.findings import LeakReport

USERS, ITEMS, LENGTH, DAY = 200, 300, 14, 86_400
START = 1_600_000_000


@dataclass(frozen=True)
class Bench:
    """A dataset, its settings and its truth; every part can be replaced."""

    dataset: Dataset
    settings: SplitSettings
    truth: pl.DataFrame

    def check(self, **evidence: Any) -> LeakReport:
        return check_leaks(evidence_of(self.dataset, self.settings, self.truth, in_seconds=True, **evidence))

    def with_split(self, **positions: np.ndarray) -> "Bench":
        return replace(self, dataset=replace(self.dataset, split=replace(self.dataset.split, **positions)))

    def with_sequences(self, **arrays: np.ndarray) -> "Bench":
        own = self.dataset.sequences
        arrays = {"offsets": own.offsets, "items": own.items, "times": own.times, "weights": own.weights, **arrays}
        return replace(self, dataset=replace(self.dataset, sequences=SequenceDataset(**arrays)))

    def with_columns(self, **columns: Any) -> "Bench":
        frame = self.dataset.catalog.frame.with_columns(**{name: pl.Series(values) for name, values in columns.items()})
        return replace(self, dataset=replace(self.dataset, catalog=Catalog(frame)))

    def with_targets_in_front(self, part: str, shift: int) -> "Bench":
        """Every target of a part stands in the user's history, too, at its first place, `shift` seconds earlier."""
        sequences, (start, end) = self.dataset.sequences, self.dataset.split.targets(part)  # type: ignore[arg-type]
        items, times, offsets = sequences.items.copy(), sequences.times.copy(), sequences.offsets[:-1]
        users = np.flatnonzero((end > start) & (start > 4))
        last, target = offsets[users] + start[users] - 1, offsets[users] + start[users]
        items[last], times[last] = items[target], times[target] - shift
        return self.with_sequences(items=items, times=times)


def log(seed: int = 5) -> SequenceDataset:
    """Users who never take an item twice, each at moments of their own in 40 days; later items are younger."""
    rng = np.random.default_rng(seed)
    times = np.sort(START + rng.integers(0, 40 * DAY, (USERS, LENGTH)), axis=1)
    items = np.stack([rng.permutation(ITEMS)[:LENGTH] for _ in range(USERS)])
    young = (times > START + 36 * DAY) & (rng.random(times.shape) < 0.2)
    items[young] = ITEMS - 1 - rng.integers(0, 5, int(young.sum()))
    items[~young & (items >= ITEMS - 5)] -= 10
    weights = rng.integers(1, 6, times.size).astype(np.float32)
    return SequenceDataset(np.arange(USERS + 1) * LENGTH, items.ravel().astype(np.int32), times.ravel(), weights)


def prepared(sequences: SequenceDataset, settings: SplitSettings) -> Bench:
    split = make_split(settings, sequences)
    counts = training_counts(split, sequences, ITEMS)
    catalog = pl.DataFrame({"item_id": np.arange(ITEMS), "title": "", "categories": [[]] * ITEMS, "events": counts})
    catalog = catalog.with_columns(field_price=pl.Series(np.random.default_rng(1).random(ITEMS)))
    known = counts > 0 if settings.asks_for_known_items else None
    frames = []
    for part in PARTS:
        users, items = ground_truth(split, sequences, part, known)
        frames.append(pl.DataFrame({"user_id": users, "item_id": items, "split": [part] * len(users)}))
    users = pl.DataFrame({"user_id": np.arange(USERS), "events": sequences.lengths})
    return Bench(Dataset(Catalog(catalog), users, sequences, split), settings, pl.concat(frames))


WINDOWS = {"valid_seconds": 3 * DAY, "test_seconds": 4 * DAY}
PROTOCOLS = {
    "comirec": {"protocol": "comirec"},
    "leave-last-out": {"protocol": "leave-last-out"},
    "all": {"protocol": "global-time", "target": "all", **WINDOWS},
    "first": {"protocol": "global-time", "target": "first", **WINDOWS},
    "last": {"protocol": "global-time", "target": "last", **WINDOWS},
    "random": {"protocol": "global-time", "target": "random", **WINDOWS},
    "cold": {"protocol": "global-time", "cold_items": True, **WINDOWS},
    "rolling-days": {"protocol": "rolling-days", "fold": 3, **WINDOWS},
}


@pytest.fixture
def clean() -> Callable[[str], Bench]:
    """The clean dataset of a protocol."""
    return lambda name: prepared(log(), SplitSettings.model_validate(PROTOCOLS[name]))
