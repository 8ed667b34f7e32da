"""The loop: learns, resumes exactly, stops where it should."""

import dataclasses
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from retrieval.core.errors import InterruptedRunError, QualityGateError, UsageError
from retrieval.data.sequences import SequenceDataset
from retrieval.losses.settings import LossSettings, PenaltySettings
from retrieval.models.settings import ComiRecSASettings, Gru4RecSettings, MindSettings
from retrieval.models.table import build_model
from retrieval.training.checkpoints import Checkpoints
from retrieval.training.examples import TrainingEvents, Windows
from retrieval.training.loop import TrainingRun, train
from retrieval.training.objective import Objective
from retrieval.training.settings import ExampleSettings, OptimizerSettings, TrainSettings
from retrieval.training.table import EXAMPLES

ITEMS = 24


def cyclic_events(users: int = 40, length: int = 30) -> TrainingEvents:
    """Every user walks around a ring of items: the next item is the last one plus one."""
    starts = np.random.default_rng(0).integers(ITEMS, size=users)
    items = ((starts[:, None] + np.arange(length)) % ITEMS).astype(np.int32).ravel()
    offsets = np.arange(users + 1) * length
    return TrainingEvents.of(SequenceDataset(offsets, items, np.tile(np.arange(length), users)), np.full(users, length))


def short_sessions() -> TrainingEvents:
    """Sessions of 2 to 8 events, so that many of them begin inside a step."""
    lengths = np.random.default_rng(2).integers(2, 9, size=60)
    offsets = np.concatenate([[0], lengths.cumsum()])
    items = np.random.default_rng(3).integers(ITEMS, size=offsets[-1]).astype(np.int32)
    return TrainingEvents.of(SequenceDataset(offsets, items, np.arange(offsets[-1])), lengths)


def make_run(folder: Path, model_settings=None, validate=None, events=None, **settings) -> TrainingRun:
    model_settings = model_settings or ComiRecSASettings(dimension=8, history=6, interests=2, dropout=0.2)
    values = {
        "steps": 12,
        "examples": ExampleSettings(batch_size=8),
        "validate_every": 4,
        "checkpoint_every": 5,
        "precision": "float32",
        **settings,
    }
    values.setdefault("loss", LossSettings(negatives=16))
    trainable = TrainSettings(**values)
    events = events or cyclic_events()
    model = build_model(model_settings, ITEMS, 1)
    examples = EXAMPLES[trainable.examples.name](events, model.history, trainable.examples, 1)
    objective = Objective(model, events, trainable.loss, torch.float32, 1, examples)
    validate = validate or (lambda model: {"recall@50": float(model.items.embedding.weight.detach().abs().mean())})
    return TrainingRun(model, examples, objective, trainable, validate, Checkpoints(folder), 1)


def weights(run: TrainingRun) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in run.model.state_dict().items()}


@pytest.mark.parametrize("loss", ["full-softmax", "sampled-softmax"])
@pytest.mark.parametrize("examples", sorted(EXAMPLES))
@pytest.mark.parametrize("readout", ["max", "log-sum-exp", "hard", "sampled", "label-aware"])
def test_the_loss_falls(tmp_path: Path, loss: str, examples: str, readout: str) -> None:
    optimizer = OptimizerSettings(learning_rate=0.03)
    settings = {"examples": ExampleSettings(name=examples, batch_size=8), "loss": LossSettings(name=loss, readout=readout, negatives=16)}
    model = Gru4RecSettings(dimension=8, history=6) if examples == "session-parallel" else None
    run = make_run(tmp_path, model, steps=60, patience=0, optimizer=optimizer, **settings)
    curve = train(run).curve
    assert curve[-1]["loss"] < curve[0]["loss"] - 0.2


@pytest.mark.parametrize("name", ["sampled-softmax", "bpr-max"])
@pytest.mark.parametrize("source", ["in-batch", "mixed", "queue"])
def test_sessions_in_slots_learn_from_the_negatives_of_the_authors(tmp_path: Path, name: str, source: str) -> None:
    loss = LossSettings(name=name, source=source, sampler="popularity", alpha=0.5, negatives=16)
    examples = ExampleSettings(name="session-parallel", batch_size=8, unroll=3)
    settings = {"steps": 60, "patience": 0, "optimizer": OptimizerSettings(learning_rate=0.03), "loss": loss, "examples": examples}
    curve = train(make_run(tmp_path, Gru4RecSettings(dimension=8, history=6), **settings)).curve
    assert curve[-1]["loss"] < curve[0]["loss"] - 0.2


CARRIED = {
    "model_settings": Gru4RecSettings(dimension=8, history=6, layers=2, readout="mean", dropout=0.2, hidden_dropout=0.2),
    "examples": ExampleSettings(name="session-parallel", batch_size=5, unroll=4),
}


@pytest.mark.parametrize("settings", [{}, CARRIED], ids=["windows", "carried"])
@pytest.mark.parametrize(
    ("stop", "item_table"), [(1, "dense"), (4, "row-wise"), (5, "dense"), (5, "row-wise"), (7, "dense"), (11, "row-wise")]
)
def test_a_run_that_was_stopped_ends_with_the_same_bytes(tmp_path: Path, stop: int, item_table: str, settings: dict) -> None:
    settings = {**settings, "optimizer": OptimizerSettings(item_table=item_table)}
    whole = make_run(tmp_path / "whole", **settings)
    train(whole)

    def interrupted_at(step: int) -> TrainingRun:
        run = make_run(tmp_path / "parts", **settings)
        batch = run.examples.batch

        def counting(number: int):
            if number == step:
                os.kill(os.getpid(), signal.SIGINT)
            return batch(number)

        run.examples.batch = counting
        return run

    with pytest.raises(InterruptedRunError) as caught:
        train(interrupted_at(stop))
    assert caught.value.signal_number == signal.SIGINT
    resumed = make_run(tmp_path / "parts", **settings)
    state = train(resumed)
    expected = weights(whole)
    assert all(torch.equal(value, expected[name]) for name, value in weights(resumed).items())
    assert state.step == 12


def test_a_signal_in_the_last_checkpoint_stops_the_run(tmp_path: Path) -> None:
    """Hours of other stages come behind the training."""
    run = make_run(tmp_path, checkpoint_every=12)
    save = run.checkpoints.save

    def saving(*given) -> None:
        run.checkpoints.save = save
        save(*given)
        os.kill(os.getpid(), signal.SIGTERM)

    run.checkpoints.save = saving
    with pytest.raises(InterruptedRunError) as caught:
        train(run)
    assert caught.value.signal_number == signal.SIGTERM
    assert Checkpoints(tmp_path).load()[0].step == 12
    assert train(make_run(tmp_path, checkpoint_every=12)).step == 12


def test_resuming_goes_on_from_the_checkpoint_and_not_from_the_start(tmp_path: Path) -> None:
    train(make_run(tmp_path, steps=10))
    run = make_run(tmp_path, steps=12)
    seen: list[int] = []
    batch = run.examples.batch
    run.examples.batch = lambda step: (seen.append(step), batch(step))[1]
    train(run)
    assert seen == [10, 11]


def test_a_run_in_parts_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """A part ends with the schedule of the whole and leaves a checkpoint, wherever the next one would have been."""
    cosine = OptimizerSettings(schedule="cosine", learning_rate=0.01)
    whole = make_run(tmp_path / "whole", optimizer=cosine)
    train(whole)
    for stop in (3, 3, 8, None):
        part = dataclasses.replace(make_run(tmp_path / "parts", optimizer=cosine), stop_at_step=stop)
        assert train(part).step == (stop or 12)
        assert Checkpoints(tmp_path / "parts").load()[0].step == (stop or 10)
    expected = weights(whole)
    assert all(torch.equal(value, expected[name]) for name, value in weights(part).items())


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    whole = make_run(tmp_path / "whole")
    train(whole)
    train(make_run(tmp_path / "parts", steps=11))
    newest = sorted((tmp_path / "parts").iterdir())[-1] / "model.safetensors"
    data = bytearray(newest.read_bytes())
    data[-3] ^= 1
    newest.write_bytes(bytes(data))
    resumed = make_run(tmp_path / "parts")
    train(resumed)
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(resumed).items())


def test_a_restart_has_the_best_weights_of_its_checkpoint_and_not_later_ones(tmp_path: Path) -> None:
    """The best of step 8 was kept after the checkpoint of step 5, which knows that of step 4."""
    seen: dict[int, dict[str, torch.Tensor]] = {}

    def run_with(values: dict[int, float], **settings) -> TrainingRun:
        run = make_run(tmp_path, steps=12, validate=lambda model: {"recall@50": values[len(seen) * 4]}, **settings)
        measure = run.validate
        object.__setattr__(run, "validate", lambda model: (seen.update({len(seen) * 4 + 4: weights(run)}), measure(model))[1])
        return run

    first = run_with({4: 0.5, 8: 0.9, 12: 0.1})
    first.checkpoints.save = lambda state, tensors: Checkpoints.save(first.checkpoints, state, tensors) if state.step == 5 else None
    train(first)
    assert Checkpoints(tmp_path).load()[0].step == 5
    del seen[8], seen[12]
    second = run_with({8: 0.4, 12: 0.3})
    assert train(second).best_step == 4
    assert all(torch.equal(value, seen[4][name]) for name, value in weights(second).items())


def test_a_checkpoint_of_another_version_is_left_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = make_run(tmp_path / "whole")
    train(whole)
    other = ComiRecSASettings(dimension=8, history=7, interests=2, dropout=0.2)
    train(make_run(tmp_path / "parts", other, steps=20))
    started = make_run(tmp_path / "parts")
    assert train(started).step == 12
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(started).items())
    assert [path.name for path in sorted((tmp_path / "parts").glob("step-*"))] == ["step-000000005", "step-000000010"]


def test_a_loss_that_is_not_finite_stops_with_the_last_good_checkpoint_kept(tmp_path: Path) -> None:
    run = make_run(tmp_path, steps=20)
    parts = run.objective.parts
    run.objective.parts = lambda windows, step, **how: (loss * (float("nan") if step == 8 else 1.0) for loss in parts(windows, step, **how))
    with pytest.raises(QualityGateError, match="the loss is nan at step 8"):
        train(run)
    state, tensors = Checkpoints(tmp_path).load()
    assert state.step == 5
    assert all(torch.isfinite(value).all() for value in tensors["model"].values())


def test_a_step_in_parts_is_the_step(tmp_path: Path) -> None:
    model = ComiRecSASettings(dimension=8, history=6, interests=2)
    whole, parts = (make_run(tmp_path / str(count), model, accumulate=count, steps=3) for count in (1, 3))
    seen: list[int] = []
    encode = parts.model.prefix_interests
    parts.model.prefix_interests = lambda histories: (seen.append(len(histories.items)), encode(histories))[1]
    first, second = train(whole).curve, train(parts).curve
    assert seen == [3, 3, 2] * 3
    assert first[0]["loss"] == pytest.approx(second[0]["loss"], abs=1e-4)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_carried_states_do_not_mind_a_step_in_parts(tmp_path: Path, count: int) -> None:
    """Sessions end inside a step, so that a part begins in the middle of a slot."""
    examples = ExampleSettings(name="session-parallel", batch_size=5, unroll=6)
    settings = {"model_settings": Gru4RecSettings(dimension=8, history=6), "events": short_sessions(), "examples": examples, "steps": 9}
    whole, parts = (make_run(tmp_path / str(accumulate), accumulate=accumulate, **settings) for accumulate in (1, count))
    assert any((parts.examples.batch(step).slots.number.bincount() > 1).any() for step in range(9))
    cut: list[torch.Tensor] = []
    advance = parts.model.advance
    parts.model.advance = lambda histories, state: (cut.append(state), advance(histories, state))[1]
    first, second = train(whole), train(parts)
    assert 9 * (count - 1) < len(cut) <= 9 * count
    assert any(part.abs().sum() > 0 for part in cut), "no state was carried"
    states = [run.objective.carried.tensors()["states"] for run in (whole, parts)]
    torch.testing.assert_close(states[1], states[0], atol=1e-6, rtol=0)
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], value, atol=2e-6, rtol=0)
    assert second.curve[-1]["loss"] == pytest.approx(first.curve[-1]["loss"], abs=1e-5)


def test_early_stopping_keeps_the_best_weights(tmp_path: Path) -> None:
    values = iter([0.1, 0.5, 0.4, 0.3, 0.2, 0.1])
    kept: list[dict[str, torch.Tensor]] = []

    def validate(model) -> dict[str, float]:
        kept.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"recall@50": next(values)}

    run = make_run(tmp_path, steps=1000, validate_every=2, patience=2, validate=validate)
    state = train(run)
    assert (state.step, state.best, state.best_step) == (8, 0.5, 4)
    assert all(torch.equal(value, kept[1][name]) for name, value in weights(run).items())


def test_mind_trains_with_adaptive_interests(tmp_path: Path) -> None:
    run = make_run(tmp_path, MindSettings(dimension=8, history=6, interests=3), steps=40, optimizer=OptimizerSettings(learning_rate=0.03))
    curve = train(run).curve
    assert curve[-1]["loss"] < curve[0]["loss"]


@pytest.mark.parametrize(("least", "expected"), [(1, [1, 2, 3, 4, 5, 6, 1, 2, 3]), (4, [4, 5, 6, 1, 2, 3])])
def test_positions_with_little_history_are_left_out_where_there_are_others(tmp_path: Path, least: int, expected: list[int]) -> None:
    """A window of six trains what has enough history; a window of three has nothing else to train."""
    run = make_run(tmp_path, steps=1)
    seen: list[torch.Tensor] = []
    loss = run.objective.loss
    run.objective.loss = lambda examples, *rest: (seen.append(examples.positive_rows), loss(examples, *rest))[1]
    windows = Windows(torch.tensor([0, 35]), torch.tensor([6, 38]), torch.tensor([6, 38]))
    run.objective(windows, 0, least_history=least)
    items = run.objective.events.items
    targets = [int(items[start + events]) for start, events in zip([0] * (len(expected) - 3) + [35] * 3, expected, strict=True)]
    assert seen[0].tolist() == targets


def test_with_a_horizon_the_target_is_any_of_the_next_events_and_never_behind_the_last(tmp_path: Path) -> None:
    run = make_run(tmp_path, steps=1)
    seen: list[torch.Tensor] = []
    loss = run.objective.loss
    run.objective.loss = lambda examples, *rest: (seen.append(examples.positive_rows), loss(examples, *rest))[1]
    for step in range(60):
        run.objective(Windows(torch.tensor([0]), torch.tensor([4]), torch.tensor([5]), horizon=3), step, least_history=1)
    items, drawn = run.objective.events.items.tolist(), torch.stack(seen)
    for position, follows in enumerate([(1, 2, 3), (2, 3, 4), (3, 4, 5), (4, 5)]):
        assert set(drawn[:, position].tolist()) == {items[event] for event in follows}


def test_penalties_change_the_loss_and_a_routing_without_gradient_is_refused(tmp_path: Path) -> None:
    plain = LossSettings(negatives=16)
    values = {}
    for name, penalties in {"none": {}, "orthogonality": {"orthogonality": 1.0}, "routing": {"routing": 100.0}}.items():
        run = make_run(tmp_path / name, loss=plain.model_copy(update={"penalties": PenaltySettings(**penalties)}))
        run.model.eval()  # no dropout: it would differ from run to run
        values[name] = float(run.objective(run.examples.batch(0), 0, least_history=1).detach())
    assert values["orthogonality"] > values["none"]
    assert values["routing"] > values["none"]
    routed = LossSettings(penalties=PenaltySettings(routing=1.0))
    run = make_run(tmp_path / "mind", MindSettings(dimension=8, history=6, interests=3), loss=routed)
    with pytest.raises(UsageError, match="no gradient"):
        run.objective(run.examples.batch(0), 0, least_history=1)


def test_only_the_newest_events_are_targets_and_their_histories_are_whole(tmp_path: Path) -> None:
    run = make_run(tmp_path, steps=1)
    events = run.objective.events
    run.objective.events = events.with_newest(2.0)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    loss = run.objective.loss
    run.objective.loss = lambda examples, *rest: (
        seen.append((examples.positive_rows, examples.queries.vectors)),
        loss(examples, *rest),
    )[1]
    run.model.eval()
    windows = Windows(torch.tensor([24]), torch.tensor([29]), torch.tensor([29]))
    run.objective(windows, 0, least_history=1)
    assert seen[0][0].tolist() == events.items[27:30].tolist()
    run.objective.events = events
    run.objective(windows, 0, least_history=1)
    assert torch.equal(seen[0][1], seen[1][1][2:])


def test_with_a_gap_only_positions_with_a_late_enough_target_are_trained(tmp_path: Path) -> None:
    run = make_run(tmp_path, steps=1)
    run.objective.events = dataclasses.replace(run.objective.events, later=torch.arange(len(run.objective.events.items)) + 3)
    seen: list[torch.Tensor] = []
    loss = run.objective.loss
    run.objective.loss = lambda examples, *rest: (seen.append(examples.positive_rows), loss(examples, *rest))[1]
    run.objective(Windows(torch.tensor([0]), torch.tensor([5]), torch.tensor([5])), 0, least_history=1)
    items = run.objective.events.items.tolist()
    assert seen[0].tolist() == [items[3], items[4], items[5]]
    assert float(run.objective(Windows(torch.tensor([0]), torch.tensor([2]), torch.tensor([2])), 0, least_history=1).detach()) == 0.0
