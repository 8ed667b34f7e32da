"""Session-parallel batches: who sits where, what is carried, and what is not."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retrieval.data.sequences import SequenceDataset
from retrieval.losses.settings import LossSettings
from retrieval.models.histories import Histories, gather_histories
from retrieval.models.settings import Gru4RecSettings
from retrieval.models.table import build_model
from retrieval.training.carried import CarriedStates
from retrieval.training.examples import Slots, TrainingEvents, Windows
from retrieval.training.objective import Objective
from retrieval.training.sessions import SessionParallel
from retrieval.training.settings import ExampleSettings

ITEMS, DIMENSION, LENGTH = 40, 6, 12


def events_of(*lengths: int) -> TrainingEvents:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items = np.random.default_rng(1).integers(ITEMS, size=offsets[-1]).astype(np.int32)
    return TrainingEvents.of(SequenceDataset(offsets, items, np.arange(offsets[-1])), np.array(lengths, dtype=np.int64))


def plan_of(events: TrainingEvents, batch_size: int, unroll: int, seed: int = 1) -> SessionParallel:
    return SessionParallel(events, LENGTH, ExampleSettings(name="session-parallel", batch_size=batch_size, unroll=unroll), seed)


def epoch_of(plan: SessionParallel, epoch: int = 0) -> list[Windows]:
    steps = -(-plan.piece // plan.unroll)
    return [plan.batch(epoch * steps + step) for step in range(steps)]


def inputs_of(windows: Windows) -> list[int]:
    return [event for start, end in zip(windows.start.tolist(), windows.end.tolist(), strict=True) for event in range(start, end)]


@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=12).filter(lambda lengths: max(lengths) >= 2),
    batch_size=st.integers(1, 9),
    unroll=st.integers(1, 7),
    epoch=st.integers(0, 2),
)
def test_an_epoch_reads_every_event_with_a_successor_once(lengths: list[int], batch_size: int, unroll: int, epoch: int) -> None:
    events = events_of(*lengths)
    plan = plan_of(events, batch_size, unroll)
    read = [event for windows in epoch_of(plan, epoch) for event in inputs_of(windows)]
    first = events.start.tolist()
    expected = {event for start, length in zip(first, lengths, strict=True) for event in range(start, start + length - 1)}
    assert len(read) == len(set(read))
    assert set(read) <= expected
    assert len(expected) - len(read) < batch_size


@given(
    lengths=st.lists(st.integers(2, 30), min_size=1, max_size=12),
    batch_size=st.integers(1, 9),
    unroll=st.integers(1, 7),
)
def test_a_slot_reads_a_session_in_order_and_starts_every_other_one_fresh(lengths: list[int], batch_size: int, unroll: int) -> None:
    events = events_of(*lengths)
    plan, reached = plan_of(events, batch_size, unroll), {}
    for number, windows in enumerate(epoch_of(plan)):
        slots = windows.slots
        assert slots.last.sum() == slots.count == plan.slots
        for slot, start, end, fresh in zip(*(x.tolist() for x in (slots.number, windows.start, windows.end, slots.fresh)), strict=True):
            begins_session = start in events.start.tolist()
            assert fresh == (begins_session or (number == 0 and slot not in reached))
            assert fresh or reached[slot] == start
            reached[slot] = end


def test_every_slot_is_busy_at_every_step() -> None:
    plan = plan_of(events_of(31, 4, 18, 2, 2, 9, 25, 3), batch_size=3, unroll=5)
    sizes = [int((windows.end - windows.start).sum()) for windows in epoch_of(plan)]
    assert sizes[:-1] == [15] * (len(sizes) - 1)
    assert sum(sizes) == 3 * ((31 + 4 + 18 + 2 + 2 + 9 + 25 + 3 - 8) // 3)


def test_epochs_differ_in_their_order() -> None:
    plan = plan_of(events_of(*[6] * 20), batch_size=4, unroll=5)
    first, second = (torch.cat([windows.start for windows in epoch_of(plan, epoch)]).tolist() for epoch in (0, 1))
    assert sorted(first) != first
    assert first != second


def vectors_of_session(model, plan: SessionParallel, events: TrainingEvents, user: int) -> torch.Tensor:
    """The vectors of a session's positions as an epoch of carried states gives them, [n-1,D]."""
    states, found = CarriedStates(), []
    for windows in epoch_of(plan):
        histories = gather_histories(events.items, events.times, windows.start, windows.end, LENGTH)
        vectors = states.advance(model, windows.slots, histories).vectors.view(len(windows.start), LENGTH, DIMENSION)
        first, stop = int(events.start[user]), int(events.start[user] + events.count[user])
        for row, (start, end) in enumerate(zip(windows.start.tolist(), windows.end.tolist(), strict=True)):
            if first <= start < stop:
                found.append(vectors[row, : end - start])
    return torch.cat(found)


@pytest.mark.parametrize("readout", ["last", "mean"])
@pytest.mark.parametrize("unroll", [1, 3, 12])
def test_sessions_one_after_the_other_in_a_slot_give_what_each_gives_alone(readout: str, unroll: int) -> None:
    events = events_of(9, 12, 2, 12)
    model = build_model(Gru4RecSettings(dimension=DIMENSION, history=LENGTH, layers=2, readout=readout), ITEMS, 1).eval()
    for user in range(4):
        start = events.start[user : user + 1]
        alone = gather_histories(events.items, events.times, start, start + events.count[user] - 1, LENGTH)
        expected = model.prefix_interests(alone).vectors[alone.valid.flatten(), 0]
        found = vectors_of_session(model, plan_of(events, 1, unroll), events, user)
        torch.testing.assert_close(found, expected)


def test_no_gradient_goes_back_through_a_carried_state() -> None:
    events = events_of(12)
    model = build_model(Gru4RecSettings(dimension=DIMENSION, history=LENGTH), ITEMS, 1)
    states, slots = CarriedStates(), Slots(torch.zeros(1, dtype=torch.int64), torch.tensor([True]), torch.tensor([True]), 1)
    halves = [gather_histories(events.items, events.times, torch.tensor([a]), torch.tensor([b]), 4) for a, b in ((0, 4), (4, 8))]
    states.advance(model, slots, halves[0])
    going_on = Slots(slots.number, torch.tensor([False]), slots.last, 1)
    states.advance(model, going_on, halves[1]).vectors.sum().backward()
    touched = model.items.embedding.weight.grad.abs().sum(dim=1).nonzero().flatten().tolist()
    assert set(touched) == set(events.items[4:8].tolist())
    assert not states.tensors()["states"].requires_grad


def test_the_states_of_a_checkpoint_are_those_that_go_on() -> None:
    events = events_of(12)
    model = build_model(Gru4RecSettings(dimension=DIMENSION, history=LENGTH), ITEMS, 1).eval()
    slots = Slots(torch.zeros(1, dtype=torch.int64), torch.tensor([True]), torch.tensor([True]), 1)
    going_on = Slots(slots.number, torch.tensor([False]), slots.last, 1)
    halves = [gather_histories(events.items, events.times, torch.tensor([a]), torch.tensor([b]), 4) for a, b in ((0, 4), (4, 8))]
    first, restored, empty = CarriedStates(), CarriedStates(), CarriedStates()
    first.advance(model, slots, halves[0])
    restored.restore({name: value.clone() for name, value in first.tensors().items()})
    empty.restore(CarriedStates().tensors())
    expected, found, without = (states.advance(model, going_on, halves[1]).vectors for states in (first, restored, empty))
    assert torch.equal(expected, found)
    assert not torch.allclose(expected, without)


def test_the_objective_learns_from_every_position_of_every_window() -> None:
    events = events_of(9, 5, 7)
    model = build_model(Gru4RecSettings(dimension=DIMENSION, history=LENGTH), ITEMS, 1)
    objective, seen = Objective(model, events, LossSettings(negatives=8), torch.float32, 1), []
    loss = objective.loss
    objective.loss = lambda examples, *rest: (seen.append(examples.positive_rows), loss(examples, *rest))[1]
    plan = plan_of(events, 2, 4)
    for step, windows in enumerate(epoch_of(plan)):
        objective(windows, step, least_history=plan.least_history)
        following = [event + 1 for event in inputs_of(windows)]
        assert seen[-1].tolist() == events.items[following].tolist()


def test_histories_of_a_batch_are_as_long_as_its_longest_window() -> None:
    events, lengths = events_of(9, 5, 7), []
    model = build_model(Gru4RecSettings(dimension=DIMENSION, history=LENGTH), ITEMS, 1)
    advance = model.encoder.advance

    def noting(vectors: torch.Tensor, histories: Histories, state: torch.Tensor):
        lengths.append(histories.items.shape[1])
        return advance(vectors, histories, state)

    model.encoder.advance = noting
    Objective(model, events, LossSettings(negatives=8), torch.float32, 1)(plan_of(events, 2, 3).batch(0), 0, least_history=1)
    assert lengths == [3]
