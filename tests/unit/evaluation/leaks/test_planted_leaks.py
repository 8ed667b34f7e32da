"""One leak at a time in otherwise clean data: the checker names the kind, the place, the number of rows and one of them."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from retrieval.data.splits import Split, training_counts
from retrieval.evaluation.leaks.check import CHECKS
from retrieval.evaluation.leaks.evidence import Popularity
from retrieval.evaluation.leaks.findings import KINDS, Finding, LeakReport

DAY, START, ITEMS = 86_400, 1_600_000_000, 300
PROTOCOLS = ("comirec", "leave-last-out", "all", "first", "last", "random", "cold", "rolling-days")
TEST_CUT = "all"


def kept(split: Split, name: str) -> np.ndarray:
    return np.array(getattr(split, name))


def only(found: LeakReport, kind: str, *others: str) -> Finding:
    """The finding of a kind, where nothing but that and what follows from it was found."""
    kinds = {finding.kind for finding in found.findings}
    assert kind in kinds
    assert kinds <= {kind, *others}
    assert found.checked[kind] == "leak"
    assert kind in found.verdict()
    first = next(finding for finding in found.findings if finding.kind == kind)
    assert first.rows > 0
    assert first.example
    return first


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_clean_split_of_every_protocol_passes(clean, protocol: str) -> None:
    found = clean(protocol).check()
    assert found.findings == ()
    assert found.verdict().startswith("No leak")
    assert set(found.checked) == set(KINDS)


def test_every_kind_has_a_check() -> None:
    assert {kind for check in CHECKS for kind in check.kinds} == set(KINDS)


def test_a_target_inside_the_visible_history(clean) -> None:
    bench = clean("leave-last-out")
    sequences = bench.dataset.sequences
    items, times = sequences.items.copy(), sequences.times.copy()
    row = int(sequences.offsets[8])
    items[row - 2], times[row - 2] = items[row - 1], times[row - 1]
    found = only(bench.with_sequences(items=items, times=times).check(), "target-in-history", "truth-without-target")
    assert found.where == "histories of test users"
    assert found.rows == 1
    assert found.example == f"user 7, item {items[row - 1]} at {times[row - 1]}"


def test_test_events_among_the_training_events(clean) -> None:
    bench = clean("leave-last-out")
    ends = kept(bench.dataset.split, "train_end")
    ends[:30] = bench.dataset.sequences.lengths[:30]
    found = bench.with_split(train_end=ends)
    counts = training_counts(found.dataset.split, bench.dataset.sequences, ITEMS)
    found = only(found.with_columns(events=counts).check(), "test-target-trained", "validation-target-trained")
    assert (found.where, found.rows) == ("training events", 30)
    assert found.example.startswith("user 0, item ")


def test_validation_targets_trained_on_under_leave_last_out(clean) -> None:
    bench = clean("leave-last-out")
    ends = bench.dataset.split.valid_end
    planted = bench.with_split(train_end=ends)
    planted = planted.with_columns(events=training_counts(planted.dataset.split, bench.dataset.sequences, ITEMS))
    assert only(planted.check(), "validation-target-trained").rows == len(ends)


def test_an_event_after_the_cut_in_training(clean) -> None:
    bench = clean(TEST_CUT)
    ends = kept(bench.dataset.split, "train_end")
    user = int(np.flatnonzero(bench.dataset.split.valid_end > bench.dataset.split.valid_start)[0])
    ends[user] += 1
    planted = bench.with_split(train_end=ends)
    planted = planted.with_columns(events=training_counts(planted.dataset.split, bench.dataset.sequences, ITEMS))
    found = only(planted.check(), "event-after-cut", "validation-target-trained")
    assert found.rows == 1
    assert found.example.startswith(f"user {user}, ")


def test_a_tie_of_time_across_the_cut(clean) -> None:
    bench = clean(TEST_CUT)
    last = int(bench.dataset.sequences.times.max())
    times, offsets = bench.dataset.sequences.times.copy(), bench.dataset.sequences.offsets[:-1]
    users = np.flatnonzero(bench.dataset.split.train_end > 0)[:5]
    times[offsets[users] + bench.dataset.split.train_end[users] - 1] = last + 1 - 7 * DAY
    found = only(bench.with_sequences(times=times).check(), "tie-across-cut", "history-after-cut")
    assert found.rows == 5


def test_popularity_counted_over_the_test_period(clean) -> None:
    bench = clean(TEST_CUT)
    whole = np.bincount(bench.dataset.sequences.items, minlength=ITEMS)
    found = only(bench.with_columns(events=whole).check(), "popularity-from-future")
    assert "events of items.parquet" in found.where
    assert "the whole log" in found.where
    model = only(bench.check(popularity={"counts of the popularity model": Popularity(whole)}), "popularity-from-future")
    assert "counts of the popularity model" in model.where
    assert bench.check(popularity={"counts of last week": Popularity(bench.dataset.catalog.events // 2)}).clean


def test_an_item_of_the_future_counted_as_known(clean) -> None:
    bench = clean(TEST_CUT)
    unknown = set(np.flatnonzero(bench.dataset.catalog.events == 0).tolist())
    users, items = [], []
    offsets, (start, end) = bench.dataset.sequences.offsets, bench.dataset.split.targets("test")
    for user in range(len(start)):
        for item in bench.dataset.sequences.items[offsets[user] + start[user] : offsets[user] + end[user]]:
            if int(item) in unknown:
                users.append(user)
                items.append(int(item))
    assert users
    more = pl.DataFrame({"user_id": users, "item_id": items, "split": ["test"] * len(users)})
    planted = type(bench)(bench.dataset, bench.settings, pl.concat([bench.truth, more.unique()]))
    found = only(planted.check(), "future-item-known")
    assert (found.where, found.rows) == ("truth, split test", more.unique().height)
    assert int(found.example.rsplit(" ", 1)[1]) in unknown


def test_a_truth_that_is_not_of_the_split(clean) -> None:
    bench = clean("comirec")
    seen = pl.DataFrame({"user_id": [3], "item_id": [int(bench.dataset.sequences.items[3 * 14])], "split": ["test"]})
    planted = type(bench)(bench.dataset, bench.settings, pl.concat([bench.truth, seen]))
    assert only(planted.check(), "truth-without-target").rows == 1


@pytest.mark.parametrize("shape", [lambda n: n, np.log1p, lambda n: n / n.sum(), lambda n: n // 2 * 2.0, lambda n: -np.sqrt(n)])
def test_a_field_that_counts_the_future(clean, shape) -> None:
    bench = clean(TEST_CUT)
    whole = np.bincount(bench.dataset.sequences.items, minlength=ITEMS).astype(float)
    found = only(bench.with_columns(field_views=shape(whole)).check(), "field-from-future")
    assert "item field views" in found.where
    assert "number of events" in found.where
    assert bench.with_columns(field_views=shape(bench.dataset.catalog.events.astype(float))).check().clean


def test_a_field_with_the_last_date_of_the_whole_log(clean) -> None:
    bench = clean("leave-last-out")
    last = np.zeros(ITEMS, np.int64)
    np.maximum.at(last, bench.dataset.sequences.items, bench.dataset.sequences.times)
    assert "last event" in only(bench.with_columns(field_seen=last // DAY).check(), "field-from-future").where
    cut = clean(TEST_CUT)
    found = only(cut.with_columns(field_seen=last).check(), "field-dated-after-cut", "field-from-future")
    assert "item field seen" in found.where


def test_a_field_with_the_average_rating_of_all_time(clean) -> None:
    bench = clean("comirec")
    sequences = bench.dataset.sequences
    sums = np.bincount(sequences.items, sequences.weights, minlength=ITEMS)
    mean = sums / np.maximum(np.bincount(sequences.items, minlength=ITEMS), 1)
    assert "mean weight" in only(bench.with_columns(field_rating=mean).check(), "field-from-future").where


def test_a_publication_date_after_the_cut(clean) -> None:
    bench = clean(TEST_CUT)
    published = np.full(ITEMS, START - 100 * DAY)
    published[bench.dataset.catalog.events == 0] = START + 39 * DAY  # what was never trained on may be of any day
    assert bench.with_columns(field_published=published).check().clean
    trained = np.flatnonzero(bench.dataset.catalog.events > 0)[:3]
    published[trained] = START + 38 * DAY
    found = only(bench.with_columns(field_published=published).check(), "field-dated-after-cut")
    assert found.rows == 3
    assert found.example.startswith(f"item {trained[0]}: ")


_REPLACED = {
    "comirec": (),
    "leave-last-out": ("truth-without-target",),
    TEST_CUT: ("truth-without-target", "popularity-from-future", "history-after-cut", "target-outside-window", "event-after-cut"),
}


@pytest.mark.parametrize("shift", [1, 3_600])
@pytest.mark.parametrize("protocol", ["comirec", "leave-last-out", TEST_CUT])
def test_targets_copied_into_the_history_under_another_time(clean, protocol: str, shift: int) -> None:
    found = clean(protocol).with_targets_in_front("test", shift).check()
    # The copies take the place of the last visible event, which may have been trained on or be a validation target.
    retimed = only(found, "target-retimed", *_REPLACED[protocol])
    assert retimed.where.startswith("histories of test users")
    assert retimed.rows >= 15


def test_users_who_come_back_to_items_are_no_leak(clean) -> None:
    bench = clean("leave-last-out")
    rng = np.random.default_rng(9)
    habits = rng.integers(0, 290, (200, 4))
    items = np.take_along_axis(habits, rng.integers(0, 4, (200, 14)), axis=1).ravel().astype(np.int32)
    bench = bench.with_sequences(items=items)
    counts = training_counts(bench.dataset.split, bench.dataset.sequences, ITEMS)
    truth = []
    for part, place in (("valid", 12), ("test", 13)):
        truth.append(pl.DataFrame({"user_id": np.arange(200), "item_id": items.reshape(200, 14)[:, place].astype(np.int64), "split": part}))
    bench = type(bench)(bench.with_columns(events=counts).dataset, bench.settings, pl.concat(truth))
    assert bench.check().clean


def test_held_out_users_inside_training(clean) -> None:
    bench = clean("comirec")
    ends = kept(bench.dataset.split, "train_end")
    held = bench.dataset.split.users("test")[:4]
    ends[held] = bench.dataset.split.test_start[held]
    planted = bench.with_split(train_end=ends)
    planted = planted.with_columns(events=training_counts(planted.dataset.split, bench.dataset.sequences, ITEMS))
    found = only(planted.check(), "held-out-user-trained")
    assert (found.where, found.rows) == ("training events of test users", int(ends[held].sum()))


@pytest.mark.parametrize("factor", [1e-3, 1e3, 1e6])
def test_units_of_time_that_are_mixed(clean, factor: float) -> None:
    bench = clean("comirec")
    times = bench.dataset.sequences.times.copy()
    users = np.flatnonzero(bench.dataset.split.train_end > 0)[:6]
    for user in users:
        times[user * 14 : user * 14 + 14] = (times[user * 14 : user * 14 + 14] * factor).astype(np.int64)
    found = only(bench.with_sequences(times=times).check(), "time-units-mixed")
    assert (found.where, found.rows) == ("training events", 6 * 14)


def test_a_history_that_goes_past_its_target(clean) -> None:
    bench = clean("leave-last-out")
    times = bench.dataset.sequences.times.copy()
    times[3 * 14 + 5] = times[3 * 14 + 13] + 60
    found = only(bench.with_sequences(times=times).check(), "history-past-target")
    assert found.example.startswith("user 3, ")


def test_a_history_that_goes_into_the_window(clean) -> None:
    bench = clean(TEST_CUT)
    start, end = bench.dataset.split.targets("test")
    users = np.flatnonzero(end - start > 1)
    later = start.copy()
    later[users] += 1
    found = only(bench.with_split(test_start=later).check(), "history-after-cut", "truth-without-target")
    assert found.rows == len(users)


def test_a_target_outside_the_window(clean) -> None:
    bench = clean("rolling-days")
    found = only(bench.with_split(test_end=bench.dataset.sequences.lengths).check(), "target-outside-window")
    assert found.where == "test targets"


def test_lists_with_items_that_did_not_exist(clean, tmp_path: Path) -> None:
    bench = clean(TEST_CUT)
    first = np.full(ITEMS, np.iinfo(np.int64).max)
    np.minimum.at(first, bench.dataset.sequences.items, bench.dataset.sequences.times)
    cut = int(bench.dataset.sequences.times.max()) + 1 - 4 * DAY
    unborn, known = np.flatnonzero((first >= cut) & (first < first.max())), np.flatnonzero(first < cut)
    path = tmp_path / "part-0.parquet"
    pl.DataFrame({"user_id": [1, 1, 2], "item_id": [*known[:2], known[3]]}).write_parquet(path)
    assert bench.check(candidates=[path]).clean
    pl.DataFrame({"user_id": [1, 1, 2], "item_id": [*known[:2], unborn[0]]}).write_parquet(path)
    found = only(bench.check(candidates=[path]), "candidate-from-future")
    assert (found.rows, found.example) == (1, f"user 2, item {unborn[0]}")


def test_ties_inside_a_users_log_are_remarked_and_no_leak(clean) -> None:
    bench = clean("leave-last-out")
    times = bench.dataset.sequences.times.copy()
    times[4 * 14 + 13] = times[4 * 14 + 12]
    found = bench.with_sequences(times=times).check()
    assert found.clean
    assert found.remarks[0].startswith("1 test users have a target at the same time")
