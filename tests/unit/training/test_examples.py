"""Batches: pure in (seed, step), inside the training part, and covering it."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retrieval.core.errors import DataContractError
from retrieval.data.sequences import SequenceDataset
from retrieval.training.examples import TrainingEvents
from retrieval.training.objective import _positions
from retrieval.training.settings import ExampleSettings
from retrieval.training.table import EXAMPLES


def events_of(lengths: list[int], train_end: list[int]) -> TrainingEvents:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items = np.arange(offsets[-1], dtype=np.int32)
    return TrainingEvents.of(SequenceDataset(offsets, items, items.astype(np.int64)), np.array(train_end, dtype=np.int64))


@given(
    users=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=8),
    name=st.sampled_from(sorted(EXAMPLES)),
    step=st.integers(0, 50),
    length=st.integers(1, 12),
)
def test_a_window_and_its_targets_stay_inside_one_users_training_part(users: list, name: str, step: int, length: int) -> None:
    lengths = [max(a, b) for a, b in users]
    events = events_of(lengths, [min(a, b) for a, b in users])
    if int(events.count.max()) < 2:
        with pytest.raises(DataContractError, match="two training events"):
            EXAMPLES[name](events, length, ExampleSettings(batch_size=6), 1)
        return
    windows = EXAMPLES[name](events, length, ExampleSettings(batch_size=6), 1).batch(step)
    owner = torch.searchsorted(events.start, windows.start, right=True) - 1
    # Users without events share a start; the last of them is the one that owns the events.
    stop = events.start[owner] + events.count[owner]
    assert bool((windows.end > windows.start).all())
    assert bool((windows.end - windows.start <= length).all())
    assert bool((windows.start >= events.start[owner]).all())
    assert bool((windows.end < stop).all())  # the event at `end` is the last target


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_a_batch_is_a_function_of_seed_and_step(name: str) -> None:
    events = events_of([30, 4, 60, 2], [30, 4, 60, 2])
    first, second = EXAMPLES[name](events, 8, ExampleSettings(batch_size=5), 7), EXAMPLES[name](events, 8, ExampleSettings(batch_size=5), 7)
    first.batch(3)
    for step in (9, 0, 4):
        assert torch.equal(first.batch(step).start, second.batch(step).start)
        assert torch.equal(first.batch(step).end, second.batch(step).end)
    other = EXAMPLES[name](events, 8, ExampleSettings(batch_size=5), 8)
    assert any(not torch.equal(first.batch(step).end, other.batch(step).end) for step in range(5))


def test_prefix_windows_train_every_event_about_as_often() -> None:
    events = events_of([100], [100])
    plan = EXAMPLES["prefixes"](events, 10, ExampleSettings(batch_size=10), 1)
    trained = torch.zeros(100)
    for step in range(600):
        windows = plan.batch(step)
        for start, end in zip(windows.start.tolist(), windows.end.tolist(), strict=True):
            trained[start + 1 : end + 1] += 1
    share = trained[1:] / trained[1:].mean()
    assert trained[0] == 0
    assert float(share.min()) > 0.5
    assert float(share.max()) < 1.6


def test_an_epoch_visits_every_user_in_proportion_to_the_events() -> None:
    events = events_of([3, 21, 41], [3, 21, 41])
    plan = EXAMPLES["prefixes"](events, 10, ExampleSettings(batch_size=7), 1)
    owners = torch.cat([torch.searchsorted(events.start, plan.batch(step).start, right=True) - 1 for step in range(7)])
    assert torch.bincount(owners).tolist() == [7, 14, 28]


def test_counts_leave_out_the_future() -> None:
    events = events_of([4, 3], [2, 0])
    assert events.counts(7).tolist() == [1, 1, 0, 0, 0, 0, 0]
    assert events.last_time() == 1
    assert events.since(1).counts(7).tolist() == [0, 1, 0, 0, 0, 0, 0]


def test_batches_hold_windows_of_like_length_and_still_every_window_once() -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(2, 60, (400,), generator=generator).tolist()
    examples = EXAMPLES["prefixes"](events_of(lengths, lengths), 50, ExampleSettings(batch_size=8), 1)
    steps = len(examples.owners) // 8
    batches = [examples.batch(step) for step in range(steps)]
    sizes = torch.stack([batch.end - batch.start for batch in batches])
    assert float(sizes.sum() / (8 * sizes.amax(dim=1)).sum()) > 0.9  # in random batches about two thirds
    owners = torch.cat([torch.searchsorted(examples.events.start, batch.start, right=True) - 1 for batch in batches])
    assert int(torch.bincount(owners).max()) <= 2  # a user with more than 51 events has two windows


def test_targets_may_lie_anywhere_up_to_the_users_last_training_event() -> None:
    events = events_of([30, 4, 60], [20, 4, 60])
    for name in sorted(EXAMPLES):
        windows = EXAMPLES[name](events, 8, ExampleSettings(batch_size=50, horizon=5), 1).batch(0)
        owner = torch.searchsorted(events.start, windows.start, right=True) - 1
        assert torch.equal(windows.last, events.start[owner] + events.count[owner] - 1)
        assert windows.horizon == 5


def test_up_to_a_share_of_the_steps_the_next_event_is_the_target() -> None:
    events, settings = events_of([30, 40, 60], [30, 40, 60]), ExampleSettings(batch_size=4, horizon=5, horizon_from=0.6)
    for name in sorted(EXAMPLES):
        examples = EXAMPLES[name](events, 8, settings, 1, steps=5)
        assert [examples.batch(step).horizon for step in range(5)] == [1, 1, 1, 5, 5]


def test_with_a_gap_a_target_comes_late_enough_and_from_the_same_user() -> None:
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(0, 9, (30,), generator=generator).tolist()
    events = events_of(lengths, lengths)
    times = torch.cat([torch.randint(0, 40, (n,), generator=generator).sort().values for n in lengths])
    later = dataclasses.replace(events, times=times).with_gap(7.0).later.tolist()
    stops = torch.repeat_interleave(events.start + events.count, torch.tensor(lengths)).tolist()
    for event, stop in enumerate(stops):
        late = [other for other in range(event + 1, stop) if times[other] >= times[event] + 7]
        assert min(later[event], stop) == (late[0] if late else stop)


def test_users_who_never_come_back_are_not_drawn() -> None:
    events = events_of([3, 3, 2], [3, 3, 2])
    apart = dataclasses.replace(events, times=torch.tensor([0, 1, 2, 0, 1, 50, 9, 9])).with_gap(10.0)
    assert EXAMPLES["prefixes"](apart, 5, ExampleSettings(batch_size=2, gap=10.0), 1).users.tolist() == [1]


@given(
    users=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=6),
    length=st.integers(1, 9),
    span=st.integers(0, 40),
)
def test_windows_are_where_the_newest_events_are(users: list, length: int, span: int) -> None:
    """A user's newest events come as often as there are windows to hold them, and old ones are history at most."""
    lengths = [max(a, b) for a, b in users]
    events = events_of(lengths, [min(a, b) for a, b in users])
    if int(events.count.max()) < 2:
        return
    owners = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    place = torch.arange(len(owners)) - events.start[owners]
    # The last event of everybody is as late as the next one's: time is told from the end.
    times = 100 - events.count[owners] + place
    events = dataclasses.replace(events, times=times).with_newest(float(span))
    new = [set(range(max(1, count - 1 - span), count)) for count in events.count.tolist()]
    assert events.n_targets().tolist() == [len(each) for each in new]
    examples = EXAMPLES["prefixes"](events, length, ExampleSettings(batch_size=16, newest=1.0), 1)
    assert len(examples.owners) == sum(-(-len(each) // length) for each in new)
    windows = examples.batch(0)
    owner = torch.searchsorted(events.start, windows.start, right=True) - 1
    for user, start, end in zip(owner.tolist(), windows.start.tolist(), windows.end.tolist(), strict=True):
        first, count = int(events.start[user]), int(events.count[user])
        targets = set(range(start - first + 1, end - first + 1))
        assert end - start == min(length, count - 1)
        assert max(targets) < count
        assert new[user] <= targets if len(new[user]) <= length else targets <= new[user]


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize(("gap", "newest", "horizon"), [(0, 0, 1), (3, 0, 1), (3, 0, 3), (0, 12, 1), (3, 9, 2)])
def test_what_ids_learn_from_is_what_some_step_reads(gap: int, newest: int, horizon: int, labels: bool) -> None:
    random = np.random.default_rng(3)
    lengths = [1, 2, 3, 7, 9, 14, 4]
    events = events_of(lengths, [1, 2, 0, 7, 8, 13, 4])
    times = torch.from_numpy(np.concatenate([np.sort(random.integers(0, 20, length)) for length in lengths]))
    events = dataclasses.replace(events, items=torch.arange(sum(lengths), dtype=torch.int32), times=times)
    events = events.with_gap(float(gap)) if gap else events
    events = events.with_newest(float(newest)) if newest else events
    events = events.with_shuffled_labels(5) if labels else events
    settings, length = ExampleSettings(batch_size=4, gap=gap, newest=newest, horizon=horizon), 5
    examples, read = EXAMPLES["prefixes"](events, length, settings, 1), set()
    for step in range(200):
        windows = examples.batch(step)
        positions = _positions(windows, windows.longest, examples.least_history, events)
        for owner, chosen, first in zip(*(each.tolist() for each in (positions.owner, positions.chosen, positions.following)), strict=True):
            begin, last = int(windows.start[owner]), int(windows.last[owner])
            read |= set(range(begin, begin + chosen % windows.longest + 1))
            read |= set(events.targets(torch.arange(first, min(first + horizon, last + 1))).tolist())
    assert set(torch.nonzero(events.learned(sum(lengths), length, horizon)).flatten().tolist()) == read
    assert read < set(range(sum(lengths)))
