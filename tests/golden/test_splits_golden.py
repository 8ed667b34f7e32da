"""Splits of a log of three users, worked out by hand."""

import datetime as dt

import numpy as np
import pytest

from retrieval.core.errors import DataContractError, UsageError
from retrieval.data.sequences import SequenceDataset
from retrieval.data.settings import SplitSettings
from retrieval.data.splits import Split, ground_truth, make_split, training_counts

# user 0: items 0 1 2 0 3 at times 10 20 30 40 50; user 1: items 1 4 at 35 45; user 2: items 2 5 5 1 at 38 41 45 60
SEQUENCES = SequenceDataset(
    offsets=np.array([0, 5, 7, 11]),
    items=np.array([0, 1, 2, 0, 3, 1, 4, 2, 5, 5, 1], dtype=np.int32),
    times=np.array([10, 20, 30, 40, 50, 35, 45, 38, 41, 45, 60]),
)


def split(**settings: object) -> Split:
    return make_split(SplitSettings.model_validate(settings), SEQUENCES)


def positions(found: Split) -> list[tuple[int, ...]]:
    return [tuple(int(value) for value in row) for row in found.frame().rows()]


def targets(found: Split, part: str, known: np.ndarray | None = None) -> list[tuple[int, int]]:
    users, items = ground_truth(found, SEQUENCES, part, known)  # type: ignore[arg-type]
    return list(zip(users.tolist(), items.tolist(), strict=True))


def test_leave_last_out() -> None:
    found = split(protocol="leave-last-out")
    assert positions(found) == [(3, 3, 4, 4, 5), (2, 2, 2, 2, 2), (2, 2, 3, 3, 4)]
    assert targets(found, "valid") == [(0, 0), (2, 5)]
    assert targets(found, "test") == [(0, 3), (2, 1)]
    assert training_counts(found, SEQUENCES, 6).tolist() == [1, 2, 2, 0, 1, 1]
    assert found.users("test").tolist() == [0, 2]


def test_global_time() -> None:
    # The last event is at 60: a test window of 15 starts at 46, a validation window of 6 at 40.
    found = split(protocol="global-time", test_seconds=15, valid_seconds=6)
    assert positions(found) == [(3, 3, 4, 4, 5), (1, 1, 2, 2, 2), (1, 1, 3, 3, 4)]
    assert targets(found, "valid") == [(0, 0), (1, 4), (2, 5)]
    assert targets(found, "test") == [(0, 3), (2, 1)]
    known = training_counts(found, SEQUENCES, 6) > 0
    assert known.tolist() == [True, True, True, False, False, False]
    assert targets(found, "valid", known) == [(0, 0)]
    assert targets(found, "test", known) == [(2, 1)]


def test_explicit_cuts_are_the_same_cuts() -> None:
    windows = split(protocol="global-time", test_seconds=15, valid_seconds=6)
    moments = [dt.datetime(1970, 1, 1, 0, 0, 40), dt.datetime(1970, 1, 1, 0, 0, 46, tzinfo=dt.UTC)]  # noqa: DTZ001 (naive is UTC)
    assert positions(split(protocol="global-time", valid_from=40, test_from=46)) == positions(windows)
    assert positions(split(protocol="global-time", valid_from=moments[0], test_from=moments[1])) == positions(windows)


@pytest.mark.parametrize(("target", "valid_of_user_2"), [("first", (1, 2)), ("last", (2, 3))])
def test_one_target_a_window(target: str, valid_of_user_2: tuple[int, int]) -> None:
    found = split(protocol="global-time", test_seconds=15, valid_seconds=6, target=target)
    assert positions(found)[2] == (1, *valid_of_user_2, 3, 4)


def test_comirec() -> None:
    lengths = np.array([10, 9, 5, 4, 1, 11, 20, 3, 2, 7])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    events = int(offsets[-1])
    sequences = SequenceDataset(offsets, np.zeros(events, dtype=np.int32), np.arange(events))
    found = make_split(SplitSettings(protocol="comirec", seed=1230), sequences)
    # floor(.8 n) of 10, 9, 5, 4, 1, 11, 20, 3, 2, 7
    shown = [8, 7, 4, 3, 0, 8, 16, 2, 1, 5]
    held = {"valid": found.users("valid").tolist(), "test": found.users("test").tolist()}
    assert [len(users) for users in held.values()] == [1, 1]
    for part, [user] in held.items():
        assert found.history_end(part)[user] == shown[user]
        assert found.targets(part)[1][user] == lengths[user]
        assert found.train_end[user] == 0
    trained = sorted(set(range(10)) - {*held["valid"], *held["test"]})
    assert len(trained) == 8
    assert found.train_end[trained].tolist() == lengths[trained].tolist()
    order = sorted(range(10), key=lambda row: splitmix64(1230 + (row + 1) * 0x9E3779B97F4A7C15))
    assert held == {"valid": [order[8]], "test": [order[9]]} == {"valid": [8], "test": [9]}
    other = make_split(SplitSettings(protocol="comirec", seed=1), sequences)
    assert positions(other) != positions(found)


def splitmix64(state: int) -> int:
    """Steele, Lea, Flood (OOPSLA 2014), in whole numbers."""
    mask = 2**64 - 1
    mixed = state & mask
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & mask
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & mask
    return mixed ^ (mixed >> 31)


@pytest.mark.parametrize("users", [1, 2, 9, 10, 11, 109])
def test_comirec_gives_eight_one_one(users: int) -> None:
    sequences = SequenceDataset(np.arange(users + 1) * 5, np.zeros(users * 5, dtype=np.int32), np.arange(users * 5))
    found = make_split(SplitSettings(protocol="comirec"), sequences)
    counts = [int((found.train_end > 0).sum()), len(found.users("valid")), len(found.users("test"))]
    assert counts == [int(users * 0.8), int(users * 0.9) - int(users * 0.8), users - int(users * 0.9)]


def test_cuts_outside_the_log_are_refused() -> None:
    with pytest.raises(DataContractError, match=r"expected cuts inside the log, 10 to 60"):
        split(protocol="global-time", test_seconds=40, valid_seconds=40)
    with pytest.raises(UsageError, match=r"validation before test"):
        split(protocol="global-time", valid_from=50, test_from=40)


def test_rolling_days_are_global_time_cuts_counted_back_from_the_last_event() -> None:
    # The last event is at 60: windows of 10 begin at 51, 41 and 31, and validation takes the 5 before each.
    assert positions(split(protocol="rolling-days", test_seconds=10, valid_seconds=5, fold=1)) == [
        (4, 4, 5, 5, 5),
        (2, 2, 2, 2, 2),
        (3, 3, 3, 3, 4),
    ]
    second = split(protocol="rolling-days", test_seconds=10, valid_seconds=5, fold=2)
    assert positions(second) == [(3, 3, 4, 4, 5), (1, 1, 1, 1, 2), (0, 0, 1, 1, 3)]
    assert targets(second, "test") == [(0, 3), (1, 4), (2, 5)]
    cut = split(protocol="global-time", valid_from=36, test_from=41)
    assert second.train_end.tolist() == cut.train_end.tolist()
    assert second.test_start.tolist() == cut.test_start.tolist()
    with pytest.raises(DataContractError, match=r"run fewer folds"):
        split(protocol="rolling-days", test_seconds=10, valid_seconds=5, fold=5)


def test_a_random_target_is_one_of_the_window_and_the_same_for_the_same_seed() -> None:
    users = 3000
    sequences = SequenceDataset(np.arange(users + 1) * 6, np.zeros(users * 6, dtype=np.int32), np.tile([1, 2, 10, 11, 20, 21], users))
    settings = SplitSettings(protocol="global-time", valid_from=10, test_from=20, target="random")
    found = make_split(settings, sequences)
    for start, end, first in ((found.valid_start, found.valid_end, 2), (found.test_start, found.test_end, 4)):
        assert (end - start == 1).all()
        assert set(start.tolist()) == {first, first + 1}
        assert abs(int((start == first).sum()) - users / 2) < 4 * (users / 4) ** 0.5
    assert (make_split(settings, sequences).test_start == found.test_start).all()
    assert (make_split(settings.model_copy(update={"seed": 2}), sequences).test_start != found.test_start).any()
    assert not ((found.valid_start == 2) == (found.test_start == 4)).all()
