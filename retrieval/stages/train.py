"""train: dataset -> model."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from retrieval.core.artifacts import Artifact, StagedArtifact, write_json
from retrieval.core.errors import DataContractError
from retrieval.core.logging import get_logger
from retrieval.core.parts import alone_in
from retrieval.core.resources import keep_freed_memory
from retrieval.core.seeds import derive_seed
from retrieval.data.dataset import Dataset
from retrieval.data.splits import Part, ground_truth, ranges
from retrieval.models.device import choose_device, choose_precision
from retrieval.models.fields.inputs import FieldInputs
from retrieval.models.retrieval_model import AbstractRetrievalModel, PopularModel, RetrievalModel
from retrieval.models.settings import CountedSettings, EncoderSettings, ImportedSettings, NeighbourSettings, PopularSettings
from retrieval.models.table import build_model
from retrieval.stages.gates import GATES, mean_gates
from retrieval.stages.item_filter import never_asked_for
from retrieval.stages.neighbours import count_neighbours
from retrieval.stages.recipe import Recipe
from retrieval.stages.warm_start import FIELD_ROWS, ITEM_IDS, WEIGHTS, field_meanings, save_field_rows, save_item_ids, start_from
from retrieval.training.checkpoints import Checkpoints, TrainingState
from retrieval.training.distributed import ALONE, World
from retrieval.training.examples import TrainingEvents
from retrieval.training.held_out import HeldOut, ValidationSettings
from retrieval.training.loop import TrainingRun, train
from retrieval.training.objective import Objective
from retrieval.training.optimizer import has_row_wise_table
from retrieval.training.sharding import held_rows
from retrieval.training.table import EXAMPLES
from retrieval.training.tensor_files import TensorFile
from retrieval.training.validation import validate

_HOUR, _DAY = 3_600, 86_400
log = get_logger("train")


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """What a model is a function of, besides its dataset."""
    if isinstance(recipe.model, CountedSettings):
        return {"model": recipe.model.model_dump()}
    if isinstance(recipe.model, ImportedSettings):
        # Its files are inputs: where they lie does not matter.
        return {"model": {"name": recipe.model.name}}
    watched = {"n": recipe.evaluate.primary_cutoff, "filter_seen": recipe.recall.filter_seen}
    # What training starts from is an input: its name is not what it is. Where the item table lies moves no bit of it.
    trained = recipe.train.in_effect().model_dump(exclude={"start_from", "sharding", "warm_steps", "warm_newest"})
    return {"model": recipe.model.model_dump(), "train": trained, "seed": recipe.seed, "validation": watched}


def _alone(stop: int | None) -> World:
    del stop
    return ALONE


@dataclass(frozen=True)
class Beginning:
    """What a training begins with; `start` is a model whose weights it takes over."""

    recipe: Recipe
    dataset: Dataset
    start: Artifact | None = None
    gather: Callable[[int | None], World] = _alone
    """The processes that train it up to a step; they come together only where there is something to train."""

    def model(self, world: World = ALONE) -> tuple[AbstractRetrievalModel, dict[str, Any]]:
        """The model before the first step, of which this process may hold a part, and what a summary says about it.

        Raises:
            UsageError: it cannot be sharded as the recipe asks, or the start model is of another kind.
        """
        recipe, n_items = self.recipe, self.dataset.catalog.n_items
        held = None if isinstance(recipe.model, CountedSettings) else held_rows(recipe.train, n_items, world)
        model = build_model(recipe.model, n_items, recipe.seed, held, model_fields(recipe, self.dataset))
        taken = start_from(model, self.recipe, self.dataset.catalog, self.start) if self.start else None
        return model, {"start": taken} if taken else {}


def write_model(beginning: Beginning, checkpoints: Path, staged: StagedArtifact) -> None:
    """Train the recipe's model and write weights, curve and summary; the checkpoints stay, for the case that the commit fails."""
    keep_freed_memory()
    recipe, dataset = beginning.recipe, beginning.dataset
    # Two runs of one recipe would overwrite each other's checkpoints; the lock lies beside them, because they are removed.
    with alone_in(checkpoints, f"training of {recipe.name}"):
        kept = Checkpoints(checkpoints)
        state, model, about = _fit(beginning, kept)
        _write_weights(model, kept, staged.path(WEIGHTS))
        _take_best(model, staged.path(WEIGHTS))
    if isinstance(recipe.model, NeighbourSettings):
        count_neighbours(recipe, dataset).write(staged.path)
    save_item_ids(dataset.catalog, staged.path(ITEM_IDS))
    if isinstance(model, RetrievalModel) and model.field_tables:
        save_field_rows(model, staged.path(FIELD_ROWS))
    write_json(staged.path("history.json"), state.curve)
    gates = mean_gates(model, dataset, recipe.seed, TensorFile(staged.path(WEIGHTS)))
    if gates:
        write_json(staged.path(GATES), gates)
    staged.summary |= {
        "model": recipe.model.name,
        "parameters": _parameters(model),
        "steps": state.step,
        "best_step": state.best_step,
        "processes": state.processes,
        "validation": next((point for point in state.curve if point["step"] == state.best_step), {}),
        "catalog_fingerprint": dataset.catalog.fingerprint,
        **({"fields": meanings} if (meanings := field_meanings(recipe)) else {}),
        **about,
    }


def _write_weights(model: AbstractRetrievalModel, kept: Checkpoints, path: Path) -> None:
    if isinstance(model, RetrievalModel):
        kept.give_best(path)  # the file as it is: the item table may be more than this process holds
    else:
        save_file(model.state_dict(), path)


def _take_best(model: AbstractRetrievalModel, written: Path) -> None:
    """Training leaves a sharded model at its last step: what is said of its gates is of the weights that were written, too."""
    if isinstance(model, RetrievalModel) and model.items.sharded:
        weights = TensorFile(written)
        for name, value in model.state_dict().items():
            if name not in model.per_item:
                weights.copy(name, value)


def _parameters(model: AbstractRetrievalModel) -> int:
    """How many numbers are learned, those that lie in other processes included."""
    own = sum(value.numel() for value in model.parameters())
    if not isinstance(model, RetrievalModel):
        return own
    held = model.items.embedding.weight
    return own - held.numel() + model.items.n_items * held.shape[1]


def train_until(beginning: Beginning, checkpoints: Path, stop: int | None) -> TrainingState:
    """Train up to a step, the end for None, and leave the checkpoint there; writes no model.

    Raises:
        QualityGateError: the loss is not finite. ConflictError: another process trains the same.
    """
    keep_freed_memory()
    recipe = beginning.recipe
    with alone_in(checkpoints, f"training of {recipe.name}"):
        return _fit(beginning, Checkpoints(checkpoints), stop or recipe.train.steps).state


def train_along(beginning: Beginning, stop: int | None) -> None:
    """The part of a process that does not lead: it trains with the others and neither reads checkpoints nor writes anything."""
    keep_freed_memory()
    _fit(beginning, Checkpoints(Path(os.devnull)), stop)


def model_fields(recipe: Recipe, dataset: Dataset) -> FieldInputs | None:
    """The fields that the recipe's model reads, None where it knows ids alone."""
    return FieldInputs.of(recipe.model.fields, dataset) if isinstance(recipe.model, EncoderSettings) else None


def open_model(artifact: Artifact, recipe: Recipe, dataset: Dataset) -> AbstractRetrievalModel:
    """The trained model, on the recipe's device and ready to encode.

    Raises:
        IntegrityError: the weights are damaged.
    """
    model = build_model(recipe.model, dataset.catalog.n_items, recipe.seed, fields=model_fields(recipe, dataset))
    TensorFile(artifact.file(WEIGHTS)).fill(model.state_dict())
    return model.to(choose_device(recipe.machine.device)).eval()


class _Fitted(NamedTuple):
    """How a training ended, the model as it lies in this process, and what a summary says about both."""

    state: TrainingState
    model: AbstractRetrievalModel
    about: dict[str, Any]


def _fit(beginning: Beginning, checkpoints: Checkpoints, stop: int | None = None) -> _Fitted:
    recipe, dataset = beginning.recipe, beginning.dataset
    events = TrainingEvents.of(dataset.sequences, dataset.split.train_end)
    if int(events.count.sum()) == 0:
        raise DataContractError("the training part of the split has no events", where="split", remedy="use more data or another protocol")
    world = ALONE if isinstance(recipe.model, CountedSettings) else beginning.gather(stop)
    model, started = beginning.model(world)
    if isinstance(model, PopularModel):
        return _Fitted(_count(model, events), model, started)
    if not isinstance(model, RetrievalModel):
        raise TypeError(f"no way to train a {type(model).__name__}")
    run = training_run(model, events, beginning, checkpoints, world)
    return _Fitted(train(replace(run, stop_at_step=stop)), model, {**started, **_resolved(recipe, model)})


def _count(model: PopularModel, events: TrainingEvents) -> TrainingState:
    days, n_items = model.settings.last_days if isinstance(model.settings, PopularSettings) else 0.0, len(model.counts)
    model.fit(_lately(events, days * _DAY, n_items) if days else events.counts(n_items))
    return TrainingState(step=1, best_step=1)


def _lately(events: TrainingEvents, seconds: float, n_items: int) -> Tensor:
    """Events of each item in the last seconds of training."""
    return events.since(round(events.last_time() - seconds)).counts(n_items)


def training_run(
    model: RetrievalModel, events: TrainingEvents, beginning: Beginning, checkpoints: Checkpoints, world: World
) -> TrainingRun:
    """Everything that the training is a function of; the model moves to the recipe's device."""
    recipe = beginning.recipe
    device = choose_device(recipe.machine.device)
    compute = choose_precision(recipe.train.precision, device)
    log.info("training", model=recipe.model.name, processes=world.size, **_resolved(recipe, model))
    events = _targeted(events, recipe)
    if model.items.fields is not None:
        # Those of a model that training starts from keep what they have learned before.
        learned = events.learned(model.items.n_items, model.history, recipe.train.examples.horizon)
        model.items.fields.trained.logical_or_(learned)
    model, events = model.to(device), events.to(device)
    if model.prior is not None:
        model.fit_prior(*_prior_counts(events, model.items.n_items, model.settings.prior.hours))
    examples = EXAMPLES[recipe.train.examples.name](events, model.history, recipe.train.examples, recipe.seed, recipe.train.steps)
    objective = Objective(model, events, recipe.train.loss, compute, recipe.seed, examples, world)
    validator = _validator(beginning, device, world)
    return TrainingRun(model, examples, objective, recipe.train, validator, checkpoints, recipe.seed, world=world)


def prior_counts(recipe: Recipe, dataset: Dataset, hours: float) -> tuple[Tensor, Tensor]:
    """Events of each item in all of training and in its last hours, int64 [N] each: what a trained model's prior was made of."""
    events = _targeted(TrainingEvents.of(dataset.sequences, dataset.split.train_end), recipe)
    return _prior_counts(events, dataset.catalog.n_items, hours)


def _prior_counts(events: TrainingEvents, n_items: int, hours: float) -> tuple[Tensor, Tensor]:
    return events.counts(n_items), _lately(events, hours * _HOUR, n_items)


def _targeted(events: TrainingEvents, recipe: Recipe) -> TrainingEvents:
    """The events, where the recipe says so with some of them no targets, or others than they were."""
    gap, newest = recipe.train.examples.gap, recipe.train.examples.newest
    events = events.with_gap(gap) if gap else events
    events = events.with_newest(newest) if newest else events
    shuffled = recipe.train.examples.labels == "shuffled"
    return events.with_shuffled_labels(derive_seed(recipe.seed, "labels")) if shuffled else events


def _resolved(recipe: Recipe, model: RetrievalModel) -> dict[str, Any]:
    """What `auto` came to here; besides the item table's it moves results in their last digits and is no part of a model's identity."""
    device = choose_device(recipe.machine.device)
    products = str(choose_precision(recipe.train.precision, device)).removeprefix("torch.")
    item_table = "row-wise" if has_row_wise_table(recipe.train, model.items.n_items) else "dense"
    sharding = "rows" if model.items.sharded else "replicated"
    return {"device": str(device), "products": products, "threads": torch.get_num_threads(), "item_table": item_table, "sharding": sharding}


def _validator(beginning: Beginning, device: torch.device, world: World) -> Callable[[RetrievalModel], dict[str, float]]:
    recipe, held_out = beginning.recipe, _watched(beginning).to(device)
    settings = ValidationSettings(n=recipe.evaluate.primary_cutoff, filter_seen=recipe.recall.filter_seen)
    return lambda model: validate(model, held_out, settings, world)


def _watched(beginning: Beginning) -> HeldOut:
    """Whom training is watched on, served as they will be. A model that finds items by what they are is asked for whatever will be.

    What `recall.filter` keeps out competes here all the same: another list of blocked items is no other model.
    """
    recipe, dataset = beginning.recipe, beginning.dataset
    by_fields = isinstance(recipe.model, EncoderSettings) and bool(recipe.model.fields.items)
    blocked = never_asked_for(recipe, dataset.catalog)
    held_out = held_out_users(dataset, "valid", recipe.train.validation_users, recipe.seed, ~blocked if by_fields else None)
    return replace(held_out, blocked=torch.from_numpy(blocked)) if blocked.any() else held_out


def held_out_users(dataset: Dataset, part: Part, most: int, seed: int, known: NDArray[np.bool_] | None = None) -> HeldOut:
    """At most `most` users of a part with something to see and something to find, chosen by seed.

    Found can be the items that are `known`, bool [N]; by default those with a training event, for nothing trained on ids can find
    another, so that it tells no good model from a bad one.

    Raises:
        DataContractError: there is none, so nothing could tell a good model from a bad one.
    """
    split, sequences = dataset.split, dataset.sequences
    owners, items = ground_truth(split, sequences, part, known=dataset.catalog.events > 0 if known is None else known)
    start, _ = split.targets(part)
    users = np.flatnonzero((np.bincount(owners, minlength=sequences.n_users) > 0) & (start > 0))
    if len(users) == 0:
        raise DataContractError(
            f"no user of the {part} part has a history and a target", where="split", remedy="use more data or another protocol"
        )
    if len(users) > most:
        users = np.sort(np.random.default_rng(derive_seed(seed, "validation")).choice(users, most, replace=False))
    place = np.full(sequences.n_users, -1)
    place[users] = np.arange(len(users))
    chosen = place[owners] >= 0
    keys = np.sort(place[owners[chosen]] * dataset.catalog.n_items + items[chosen])
    counts = np.bincount(place[owners[chosen]], minlength=len(users))
    # What these users see, and not the log: it would be held, and sent to the device, a second time.
    visible, _ = ranges(sequences.offsets[:-1][users], start[users])
    cut = np.cumsum(start[users])
    arrays = (sequences.items[visible], sequences.times[visible], cut - start[users], cut, keys, counts, users, visible)
    return HeldOut(*(torch.from_numpy(np.array(array)) for array in arrays))
