"""Small trainings, in this process or in several that share one group: what test_distributed.py compares.

As a program it is one of the processes: RANK SIZE FOLDER. They meet by a file, train every case one after the other, and
write the weights that each of them ends with.
"""

import dataclasses
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.distributed import FileStore

from retrieval.core.errors import IntegrityError, InterruptedRunError, QualityGateError, UsageError
from retrieval.core.ranks import Place
from retrieval.data.sequences import SequenceDataset
from retrieval.losses.settings import LossSettings, PenaltySettings
from retrieval.models.settings import ComiRecSASettings, Gru4RecSettings
from retrieval.models.table import build_model
from retrieval.training.checkpoints import Checkpoints, TrainingState
from retrieval.training.distributed import ALONE, World, join, leave
from retrieval.training.examples import TrainingEvents
from retrieval.training.loop import TrainingRun, train
from retrieval.training.objective import Objective
from retrieval.training.settings import ExampleSettings, OptimizerSettings, TrainSettings
from retrieval.training.table import EXAMPLES
from retrieval.training.validation import HeldOut, ValidationSettings, validate

ITEMS, USERS = 40, 30
SAMPLED = LossSettings(negatives=12, leave_out="past")
CUTS = ExampleSettings(name="random-cut", batch_size=7)
CASES: dict[str, dict[str, Any]] = {
    "sampled": {"loss": SAMPLED},
    "full": {"loss": LossSettings(name="full-softmax")},
    "mixed": {"loss": LossSettings(name="corrected-logq", source="mixed", negatives=12), "accumulate": 2},
    "queue": {"loss": LossSettings(name="bpr-max", source="queue", queue_batches=2), "examples": CUTS},
    "cuts": {"loss": LossSettings(negatives=12, penalties=PenaltySettings(orthogonality=0.1, routing=0.1)), "examples": CUTS},
    "rows": {"loss": SAMPLED, "optimizer": OptimizerSettings(item_table="row-wise", learning_rate=0.01, clip_norm=0.1)},
    "slots": {"loss": SAMPLED, "examples": ExampleSettings(name="session-parallel", batch_size=5, unroll=4)},
}
"""Unequal shares, weights that differ, clipped gradients: every one of 7 windows and of 5 slots for two processes."""


def events() -> TrainingEvents:
    """Sessions of 3 to 24 events, each with a weight."""
    random = np.random.default_rng(5)
    lengths = random.integers(3, 25, size=USERS)
    offsets = np.concatenate([[0], lengths.cumsum()])
    items = random.integers(ITEMS, size=offsets[-1]).astype(np.int32)
    weights = random.uniform(0.5, 1.5, size=offsets[-1]).astype(np.float32)
    return TrainingEvents.of(SequenceDataset(offsets, items, np.arange(offsets[-1]), weights), lengths)


def held_out(known: TrainingEvents) -> HeldOut:
    """The last event of each user."""
    users = torch.arange(USERS)
    cut = known.start + known.count - 1
    keys = users * ITEMS + known.items[cut]
    return HeldOut(known.items, known.times, known.start, cut, keys.sort().values, torch.ones(USERS, dtype=torch.int64))


def make_run(case: str, folder: Path, world: World = ALONE, **changes: Any) -> TrainingRun:
    """A training of five steps, validated at the third and the last, without dropout."""
    model_settings: Any = ComiRecSASettings(dimension=8, history=6, interests=2)
    if case == "slots":
        model_settings = Gru4RecSettings(dimension=8, history=6)
    dropout = changes.pop("dropout", 0.0)
    values = {"steps": 5, "validate_every": 3, "checkpoint_every": 2, "precision": "float32", "patience": 0}
    examples = ExampleSettings(batch_size=7)
    settings = TrainSettings(**{**values, "examples": examples, **CASES.get(case, {}), **changes})
    known = events()
    model = build_model(model_settings.model_copy(update={"dropout": dropout}), ITEMS, 1)
    batches = EXAMPLES[settings.examples.name](known, model.history, settings.examples, 1)
    objective = Objective(model, known, settings.loss, torch.float32, 1, batches, world)
    users = held_out(known)
    validator: Callable[[Any], dict[str, float]] = lambda model: validate(model, users, ValidationSettings(n=5), world)  # noqa: E731
    return TrainingRun(model, batches, objective, settings, validator, Checkpoints(folder), 1, world=world)


def ended(run: TrainingRun) -> tuple[TrainingState, dict[str, torch.Tensor]]:
    """How a training ends, and the weights after its last step, which are those of its last checkpoint's step."""
    last: dict[str, torch.Tensor] = {}
    measure = run.validate

    def watched(model: Any) -> dict[str, float]:
        last.update({name: value.clone() for name, value in model.state_dict().items()})
        return measure(model)

    state = train(dataclasses.replace(run, validate=watched))
    return state, last


def _write(folder: Path, name: str, rank: int, found: tuple[TrainingState, dict[str, torch.Tensor]]) -> None:
    state, weights = found
    curve = {f"{key}/{number}": torch.tensor(value) for number, point in enumerate(state.curve) for key, value in point.items()}
    save_file({**weights, **curve}, folder / f"{name}-{rank}.safetensors")


def _main(rank: int, size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    world = join(Place(rank, size), FileStore(str(folder / "met"), size), torch.device("cpu"))
    for case in CASES:
        _write(folder, case, rank, ended(make_run(case, folder / "checkpoints" / case, world)))
    _write(folder, "whole", rank, ended(make_run("slots", folder / "checkpoints" / "whole", world, dropout=0.3)))
    _write(folder, "parts", rank, ended(_stopped_by_signal(folder / "checkpoints" / "parts", world)))
    train(dataclasses.replace(make_run("slots", folder / "checkpoints" / "other-size", world), stop_at_step=4))
    _check_bad_steps(world, folder / "checkpoints")
    world.wait()
    leave()


def _stopped_by_signal(folder: Path, world: World) -> TrainingRun:
    """A training that the last process was told to stop in its third step, as it goes on."""
    run = make_run("slots", folder, world, dropout=0.3)
    draw = run.examples.batch

    def batch(step: int) -> Any:
        if step == 2 and world.rank == world.size - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return draw(step)

    run.examples.batch = batch  # type: ignore[method-assign]
    with pytest.raises(InterruptedRunError) as caught:
        train(run)
    assert caught.value.signal_number == signal.SIGTERM
    assert "step 3" in caught.value.what
    return make_run("slots", folder, world, dropout=0.3)


def _check_bad_steps(world: World, folder: Path) -> None:
    """What goes wrong in one process stops all of them."""
    run = make_run("sampled", folder / "nan", world)
    parts, factor = run.objective.parts, float("nan") if world.rank == 1 else 1.0
    run.objective.parts = lambda *windows, **how: (loss * factor for loss in parts(*windows, **how))  # type: ignore[method-assign]
    with pytest.raises(QualityGateError, match="the loss is nan at step 0"):
        train(run)
    with pytest.raises(IntegrityError, match="1 of 2 processes"):
        world.require_same([torch.full((3,), float(world.rank))])
    few = make_run("sampled", folder / "few", world, examples=ExampleSettings(batch_size=1))
    with pytest.raises(UsageError, match="2 processes share a batch of 1"):
        train(few)


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # gloo may abort a process that ends the usual way after a good run; the command line leaves like this, too
