"""Small trainings, in this process or in several that share one group: what test_distributed.py compares.

As a program it is one of the processes: RANK SIZE FOLDER. They meet by a file, train every case one after the other, and
write the weights that each of them ends with. Two do what replicas do, three what a sharded item table does beside replicas.
"""

import dataclasses
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file
from torch.distributed import FileStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from retrieval.core.errors import IntegrityError, InterruptedRunError, QualityGateError, UsageError
from retrieval.core.ranks import Place
from retrieval.data.fields.coding import code_column
from retrieval.data.fields.settings import CategoricalField
from retrieval.data.sequences import SequenceDataset
from retrieval.losses.settings import LossSettings, PenaltySettings
from retrieval.models import item_tower
from retrieval.models.fields.inputs import FieldInputs
from retrieval.models.fields.settings import FieldsSettings
from retrieval.models.gates.settings import SENetSettings
from retrieval.models.settings import ComiRecSASettings, Gru4RecSettings, InterestTransformerSettings, PriorSettings
from retrieval.models.table import build_model
from retrieval.training import sharded_rows, tensor_files
from retrieval.training.checkpoints import Checkpoints, TrainingState
from retrieval.training.distributed import ALONE, World, join, leave
from retrieval.training.examples import TrainingEvents
from retrieval.training.held_out import HeldOut, ValidationSettings
from retrieval.training.loop import TrainingRun, train
from retrieval.training.objective import Objective
from retrieval.training.optimizer import ROW_WISE_FROM
from retrieval.training.settings import ExampleSettings, OptimizerSettings, TrainSettings
from retrieval.training.sharding import held_rows
from retrieval.training.table import EXAMPLES
from retrieval.training.validation import validate

ITEMS, USERS, LARGE = 40, 30, 30_000
SAMPLED = LossSettings(negatives=12, leave_out="past")
CUTS = ExampleSettings(name="random-cut", batch_size=7)
GROUPED = FieldsSettings(items=("group",), gate=SENetSettings())
CASES: dict[str, dict[str, Any]] = {
    "sampled": {"loss": SAMPLED},
    "full": {"loss": LossSettings(name="full-softmax")},
    "mixed": {"loss": LossSettings(name="corrected-logq", source="mixed", negatives=12), "accumulate": 2},
    "queue": {"loss": LossSettings(name="bpr-max", source="queue", queue_batches=2), "examples": CUTS},
    "cuts": {"loss": LossSettings(negatives=12, penalties=PenaltySettings(orthogonality=0.1, routing=0.1)), "examples": CUTS},
    "rows": {"loss": SAMPLED, "optimizer": OptimizerSettings(item_table="row-wise", learning_rate=0.01, clip_norm=0.1)},
    "slots": {"loss": SAMPLED, "examples": ExampleSettings(name="session-parallel", batch_size=5, unroll=4)},
    "fields": {"loss": SAMPLED, "model": ComiRecSASettings(dimension=8, history=6, interests=2, fields=GROUPED)},
    "hashed": {"loss": SAMPLED, "model": ComiRecSASettings(dimension=8, history=6, interests=2, fields=GROUPED), "hashed": ROW_WISE_FROM},
}
"""Unequal shares, weights that differ, clipped gradients: every one of 7 windows and of 5 slots for two processes."""
ROW_WISE = OptimizerSettings(item_table="row-wise", learning_rate=0.01, weight_decay=0.1, clip_norm=0.1)
SHARDED: dict[str, dict[str, Any]] = {
    "windows": {"loss": SAMPLED, "accumulate": 2},
    "fields": CASES["fields"],
    "hashed": CASES["hashed"],
    "cuts": {"loss": LossSettings(name="bpr-max", source="queue", queue_batches=2), "examples": CUTS, "watched": 2, "filter_seen": True},
    "slots": {**CASES["slots"], "loss": LossSettings(source="mixed", negatives=12), "accumulate": 2},
    "scored": {
        "loss": LossSettings(negatives=12, penalties=PenaltySettings(orthogonality=0.1, routing=0.1)),
        "model": ComiRecSASettings(
            dimension=8, history=6, interests=2, similarity="cosine", temperature=0.1, prior=PriorSettings(hours=1.0)
        ),
        "filter_seen": True,
    },
    "transformer": {
        "loss": LossSettings(negatives=12, readout="log-sum-exp", leave_out="future"),
        "model": InterestTransformerSettings(dimension=8, history=6, interests=2, weighted=True, prior=PriorSettings(hours=1.0)),
    },
}
"""40 rows for three processes; fewer held-out users than processes; columns beside the vectors; seen items left out."""


def events() -> TrainingEvents:
    """Sessions of 3 to 24 events, each with a weight."""
    random = np.random.default_rng(5)
    lengths = random.integers(3, 25, size=USERS)
    offsets = np.concatenate([[0], lengths.cumsum()])
    items = random.integers(ITEMS, size=offsets[-1]).astype(np.int32)
    weights = random.uniform(0.5, 1.5, size=offsets[-1]).astype(np.float32)
    return TrainingEvents.of(SequenceDataset(offsets, items, np.arange(offsets[-1]), weights), lengths)


def known_fields(known: TrainingEvents, n_items: int, hashed: int) -> FieldInputs:
    """A name for every item, three names in turn, a row each or hashed into rows, and which of their ids are trained."""
    names = pl.Series([f"g{number % 3}" for number in range(n_items)])
    group = code_column("group", CategoricalField(hashed=hashed), names, np.ones(n_items, dtype=np.int64))
    return FieldInputs(items=[group], trained=known.learned(n_items, 6, 1).numpy())


def held_out(known: TrainingEvents, watched: int, n_items: int) -> HeldOut:
    """The last event of the first users."""
    users = torch.arange(watched)
    cut = (known.start + known.count - 1)[:watched]
    keys = users * n_items + known.items[cut]
    return HeldOut(known.items, known.times, known.start[:watched], cut, keys.sort().values, torch.ones(watched, dtype=torch.int64))


def make_run(case: str, folder: Path, world: World = ALONE, **changes: Any) -> TrainingRun:
    """A training of five steps, validated at the third and the last, without dropout."""
    values: dict[str, Any] = {"steps": 5, "validate_every": 3, "checkpoint_every": 2, "precision": "float32", "patience": 0}
    values |= {"examples": ExampleSettings(batch_size=7), **CASES.get(case, {}), **changes}
    dropout, n_items, watched = values.pop("dropout", 0.0), values.pop("n_items", ITEMS), values.pop("watched", USERS)
    hashed = values.pop("hashed", 0)
    measured = ValidationSettings(n=5, filter_seen=values.pop("filter_seen", False), batch_users=4, scores=n_items)
    session = Gru4RecSettings(dimension=8, history=6)
    window = ComiRecSASettings(dimension=8, history=6, interests=2)
    model_settings = values.pop("model", session if values["examples"].name == "session-parallel" else window)
    settings = TrainSettings(**values)
    known = events()
    held = held_rows(settings, n_items, world)
    fields = known_fields(known, n_items, hashed) if model_settings.fields.items else None
    model: Any = build_model(model_settings.model_copy(update={"dropout": dropout}), n_items, 1, held, fields)
    model.fit_prior(known.counts(n_items), known.counts(n_items) // 2)
    batches = EXAMPLES[settings.examples.name](known, model.history, settings.examples, 1)
    objective = Objective(model, known, settings.loss, torch.float32, 1, batches, world)
    users = held_out(known, watched, n_items)
    validator: Callable[[Any], dict[str, float]] = lambda model: validate(model, users, measured, world)  # noqa: E731
    return TrainingRun(model, batches, objective, settings, validator, Checkpoints(folder), 1, world=world)


def ended(run: TrainingRun) -> tuple[TrainingState, dict[str, torch.Tensor]]:
    """How a training ends, and the weights after its last step, which are those of its last checkpoint's step."""
    last: dict[str, torch.Tensor] = {}
    measure = run.validate

    def watched(model: Any) -> dict[str, float]:
        last.update({name: value.clone() for name, value in model.state_dict().items()})
        return measure(model)

    state = train(dataclasses.replace(run, validate=watched))
    if run.model.items.sharded:
        last |= {name: run.world.joined(last[name], run.model.items.n_items) for name in run.model.per_item}
    return state, last


def _write(folder: Path, name: str, rank: int, found: tuple[TrainingState, dict[str, torch.Tensor]]) -> None:
    state, weights = found
    curve = {f"{key}/{number}": torch.tensor(value) for number, point in enumerate(state.curve) for key, value in point.items()}
    save_file({**weights, **curve}, folder / f"{name}-{rank}.safetensors")


def _main(rank: int, size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    world = join(Place(rank, size), FileStore(str(folder / "met"), size), torch.device("cpu"))
    (_replicas if size == 2 else _shards)(world, folder)
    world.wait()
    leave()


def _replicas(world: World, folder: Path) -> None:
    for case in CASES:
        _write(folder, case, world.rank, ended(make_run(case, folder / "checkpoints" / case, world)))
    _write(folder, "whole", world.rank, ended(make_run("slots", folder / "checkpoints" / "whole", world, dropout=0.3)))
    _write(folder, "parts", world.rank, ended(_stopped_by_signal(folder / "checkpoints" / "parts", world)))
    train(dataclasses.replace(make_run("slots", folder / "checkpoints" / "other-size", world), stop_at_step=4))
    _check_bad_steps(world, folder / "checkpoints")


def _shards(world: World, folder: Path) -> None:
    item_tower._DRAWN = sharded_rows.CHUNK = tensor_files.CHUNK = 64
    for case, changes in SHARDED.items():
        for sharding in ("replicated", "rows"):
            made = sharded_run(folder / "checkpoints" / f"{case}-{sharding}", world, sharding, **changes)
            _write(folder, f"{case}-{sharding}", world.rank, ended(made))
    for first, then in (("rows", "rows"), ("rows", "replicated"), ("replicated", "rows")):
        parts = folder / "checkpoints" / f"{first}-{then}"
        train(dataclasses.replace(sharded_run(parts, world, first, **SHARDED["slots"]), stop_at_step=4))
        _write(folder, f"{first}-{then}", world.rank, ended(sharded_run(parts, world, then, **SHARDED["slots"])))
    train(dataclasses.replace(sharded_run(folder / "checkpoints" / "other-size", world, "rows", **SHARDED["windows"]), stop_at_step=4))
    largest = {sharding: torch.tensor(_largest_tensor(folder / "checkpoints", world, sharding)) for sharding in ("replicated", "rows")}
    save_file(largest, folder / f"largest-{world.rank}.safetensors")


def sharded_run(folder: Path, world: World, sharding: str, **changes: Any) -> TrainingRun:
    """A training with the item table in rows or whole in every process."""
    return make_run("", folder, world, optimizer=ROW_WISE, **{**changes, "sharding": sharding})


def _largest_tensor(folder: Path, world: World, sharding: str) -> int:
    """The bytes of the largest tensor that this process makes, from the first weights to the last checkpoint and back from it."""
    item_tower._DRAWN = sharded_rows.CHUNK = tensor_files.CHUNK = 4096
    with _Largest() as seen:
        for steps in (2, 3):
            run = sharded_run(folder / f"large-{sharding}", world, sharding, n_items=LARGE, loss=SAMPLED, steps=steps, watched=3)
            assert train(run).step == steps
    return seen.bytes


class _Largest(TorchDispatchMode):
    bytes = 0

    def __torch_dispatch__(self, call: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        made = call(*arguments, **(options or {}))
        sizes = [value.untyped_storage().nbytes() for value in tree_leaves(made) if isinstance(value, torch.Tensor)]
        self.bytes = max([self.bytes, *sizes])
        return made


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
