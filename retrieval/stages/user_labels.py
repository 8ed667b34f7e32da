"""What is known of test users that divides them: history, activity, interests, and the log's own fields."""

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retrieval.core.artifacts import Artifact
from retrieval.data.catalog import SortedIds
from retrieval.data.dataset import Dataset
from retrieval.data.splits import ranges
from retrieval.evaluation.labels import Dimension, UserLabels, banded, distinct, user_labels
from retrieval.evaluation.settings import SliceSettings
from retrieval.evaluation.tables import batches

_DAY = 86_400
_CHUNK = 1 << 16
_LENGTHS = (1, 2, 5, 10, 20, 50, 100, 200)
_EVENTS = (2, 5, 10, 20)


def label_test_users(dataset: Dataset, candidates: Artifact, settings: SliceSettings, *, timed: bool) -> UserLabels:
    """Labels of all test users; timed: the log has times in seconds, and so an activity."""
    rows = dataset.split.users("test")
    visible = dataset.split.test_start[rows]
    found = [banded("history length", visible, _LENGTHS), _age(visible, settings)]
    found += [banded("activity", _recent_events(dataset, rows, settings), _EVENTS)] if timed else []
    ids = dataset.users["user_id"].gather(rows)
    fields = dataset.users.select("user_id", pl.col(r"^field_.*$"))[rows]
    found += [*_interests(ids, candidates), *user_labels(fields, settings.values).dimensions]
    return UserLabels(ids, tuple(each for each in distinct(found) if len(np.unique(each.codes)) > 1))


def _age(visible: NDArray[np.int64], settings: SliceSettings) -> Dimension:
    names = (f"new users (below {settings.new_users} events)", "known users")
    return Dimension("user age", names, (visible >= settings.new_users).astype(np.int16))


def _recent_events(dataset: Dataset, rows: NDArray[np.int64], settings: SliceSettings) -> NDArray[np.int64]:
    """Visible events in the last days before each user's newest visible one, that one included."""
    window = round(settings.activity_days * _DAY)
    return np.concatenate([np.zeros(0, np.int64), *(_counted(dataset, part, window) for part in _chunks(rows))])


def _counted(dataset: Dataset, rows: NDArray[np.int64], window: int) -> NDArray[np.int64]:
    sequences, visible = dataset.sequences, dataset.split.test_start[rows]
    first = sequences.offsets[:-1][rows]
    positions, owner = ranges(first, visible)
    newest = np.where(visible > 0, sequences.times[np.maximum(first + visible - 1, 0)], 0) if sequences.n_events else visible
    recent = np.asarray(sequences.times[positions]) > newest[owner] - window
    counts: NDArray[np.int64] = np.bincount(owner[recent], minlength=len(rows))
    return counts


def _chunks(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for first in range(0, len(rows), _CHUNK):
        yield rows[first : first + _CHUNK]


def _interests(ids: pl.Series, candidates: Artifact) -> Iterator[Dimension]:
    """How many interests each user has; nothing where all have as many."""
    numbers, known = np.zeros(len(ids), np.int64), SortedIds(ids)
    for frame in batches(candidates.files("users-"), ("user_id", "interests")):
        rows = known.rows_of(frame["user_id"])
        numbers[rows[rows >= 0]] = frame["interests"].to_numpy()[rows >= 0]
    values = np.unique(numbers)
    yield Dimension("number of interests", tuple(map(str, values)), np.searchsorted(values, numbers).astype(np.int16))
