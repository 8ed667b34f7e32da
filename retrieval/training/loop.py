"""The training loop: one, for every model, loss and example strategy."""

import math
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from retrieval.core.errors import InterruptedRunError, QualityGateError, UsageError
from retrieval.core.logging import get_logger
from retrieval.core.progress import Progress, progress
from retrieval.core.seeds import derive_seed
from retrieval.core.signals import Received, deferred_signals
from retrieval.models.rescoring.model import RescoringModel
from retrieval.models.retrieval_model import RetrievalModel
from retrieval.training.carried import CarriedStates
from retrieval.training.checkpoints import Checkpoints, TensorGroups, TrainingState
from retrieval.training.distributed import ALONE, World
from retrieval.training.optimizer import Optimizer, has_row_wise_table
from retrieval.training.settings import TrainSettings
from retrieval.training.sharded_rows import ShardedRows, Stored, stored
from retrieval.training.tensor_files import send_rows

Trainable = RetrievalModel | RescoringModel
log = get_logger("train")


@runtime_checkable
class Examples(Protocol):
    """What a step learns from, a function of its number."""

    @property
    def most_processes(self) -> int:
        """How many can share a step so that each has a part of it."""

    @property
    def least_history(self) -> int | None:
        """What the objective is told of the examples."""

    def batch(self, step: int) -> Any:
        """What the objective takes."""


@runtime_checkable
class Objective(Protocol):
    """From a batch to the loss."""

    carried: CarriedStates

    def parts(self, windows: Any, step: int, /, *, least_history: int | None, count: int) -> Iterator[Tensor]:
        """The loss of a step as summands, each with a graph of its own."""


@dataclass(frozen=True)
class TrainingRun:
    """Everything training is a function of."""

    model: Trainable
    examples: Examples
    objective: Objective
    settings: TrainSettings
    validate: Callable[[Any], dict[str, float]]
    """Metrics of the model on held-out users; the first one decides."""
    checkpoints: Checkpoints
    seed: int
    stop_at_step: int | None = None
    """Leave a checkpoint at this step and end, as if killed there: no part of what is trained, which goes on later."""
    world: World = ALONE
    """The processes that train it together; the first one reads and writes the files, and ends with the best weights if it holds all."""


def train(run: TrainingRun) -> TrainingState:
    """Train to the end or to early stopping, from the newest checkpoint if there is one; leaves the best weights in the model.

    A sharded model is left with its last weights: the best ones are in the checkpoints' file, where one process reads them.

    Raises:
        InterruptedRunError: SIGINT or SIGTERM came; a checkpoint was written.
        QualityGateError: the loss or its gradient is not finite; the last good checkpoint is kept.
        UsageError: a batch has fewer parts than there are processes. ResourceError: another process is gone.
    """
    most = run.examples.most_processes
    if run.world.size > most:
        raise UsageError(
            f"{run.world.size} processes share a batch of {most}", where="train.examples.batch_size", expected="a part for each of them"
        )
    return _Loop(run).go()


class _Loop:
    def __init__(self, run: TrainingRun) -> None:
        self.run, self.world, self.state = run, run.world, TrainingState(processes=run.world.size)
        self.received, self.signal = Received(), 0
        row_wise = has_row_wise_table(run.settings, run.model.items.n_items)
        self.optimizer = Optimizer(run.model, run.settings.optimizer, row_wise=row_wise, world=run.world)
        self.since_validation = torch.zeros(2, dtype=torch.float64)  # sum of losses, steps
        self._resume()

    def go(self) -> TrainingState:
        settings = self.run.settings
        shown = progress("train", settings.steps, done=self.state.step, shown=self.world.leads)
        with deferred_signals() as self.received, shown as bar:
            while not self._finished():
                self._step(bar)
                if self.state.step % settings.validate_every == 0 or self.state.step == settings.steps:
                    self._validate(bar)
                if self._stopped_by():
                    self._stop()
                if self.state.step % settings.checkpoint_every == 0 or self.state.step == self.run.stop_at_step:
                    self._save()
            # Once more: one that came while the last checkpoint was written would be forgotten.
            self._told(0.0)
            if self._stopped_by():
                self._stop()
        best = self.run.checkpoints.best() if self.world.leads and not self.run.model.items.sharded else None
        if best is not None:  # a part that ends before the first validation has none yet
            best.fill(self.run.model.state_dict())
        return self.state

    def _finished(self) -> bool:
        settings, stop = self.run.settings, self.run.stop_at_step
        if stop is not None and self.state.step >= stop:
            return True
        return self.state.step >= settings.steps or (settings.patience > 0 and self.state.stale >= settings.patience)

    def _step(self, bar: Progress) -> None:
        run, step = self.run, self.state.step
        run.model.train()
        self.optimizer.clear()
        with torch.random.fork_rng(devices=[]):
            # Dropout draws from the global generator; seeded by step, it is the same after a restart.
            torch.manual_seed(derive_seed(run.seed, "dropout", step, *self.world.draws))
            loss = self._told(self._backward(step))
        self._require_finite(loss, "loss")
        self._require_finite(float(self.optimizer.collect(run.settings.optimizer.clip_norm)), "gradient")
        self.optimizer.step(_rate(run.settings, step))
        self.state.step += 1
        self.since_validation += torch.tensor([loss, 1.0], dtype=torch.float64)
        bar.advance()

    def _backward(self, step: int) -> float:
        """The loss of a step; its gradients lie where the optimizer finds them."""
        run, total = self.run, 0.0
        windows = run.examples.batch(step)
        for loss in run.objective.parts(windows, step, least_history=run.examples.least_history, count=run.settings.accumulate):
            torch.autograd.backward(loss)
            total += float(loss.detach())
        return total

    def _told(self, loss: float) -> float:
        """The loss of all processes; what they tell one another at every step, so that all of them go on or stop."""
        signals = [float(self.received.number == number) for number in (signal.SIGINT, signal.SIGTERM)]
        loss, interrupted, terminated = self.world.sum([loss, *signals])
        self.signal = signal.SIGTERM if terminated else signal.SIGINT if interrupted else 0
        return loss

    def _stopped_by(self) -> int:
        """The signal that every process knows of, 0 for none."""
        return self.received.number if self.world.size == 1 else self.signal

    def _validate(self, bar: Progress) -> None:
        measured = self.run.validate(self.run.model)
        loss = float(self.since_validation[0] / self.since_validation[1])
        self.since_validation.zero_()
        name, value = next(iter(measured.items()))
        self.state.curve.append({"step": self.state.step, "loss": loss, **measured})
        if value > self.state.best:
            self.state.best, self.state.best_step, self.state.stale = value, self.state.step, 0
            self._keep_best()
        else:
            self.state.stale += 1
        bar.advance(0, note=f"loss {loss:.3f}  {name} {value:.4f}  best {self.state.best:.4f} at {self.state.best_step}")
        log.debug("validated", step=self.state.step, loss=round(loss, 4), **{key: round(number, 4) for key, number in measured.items()})

    def _require_finite(self, value: float, what: str) -> None:
        if not math.isfinite(value):
            raise QualityGateError(
                f"the {what} is {value} at step {self.state.step}",
                where="train",
                remedy="lower train.optimizer.learning_rate, which trains anew; the last good checkpoint of this one is kept",
            )

    def _stop(self) -> None:
        self._save()
        self.world.wait()  # A process that left now would take the one that writes with it.
        raise InterruptedRunError(
            f"stopped by signal at step {self.state.step}, checkpoint written",
            signal_number=self._stopped_by(),
            where="train",
            remedy="run the same command again to go on",
        )

    def _keep_best(self) -> None:
        weights = self._weights()
        if self.world.leads:
            self.run.checkpoints.keep_best(weights)
        else:
            send_rows(weights)

    def _save(self) -> None:
        weights = self._weights()
        learned = (weights[name] for name, _ in self.run.model.named_parameters())
        self.world.require_same(value for value in learned if isinstance(value, Tensor))
        carried = self.run.objective.carried.tensors(self.world)
        groups: dict[str, Mapping[str, Stored]] = {"model": weights, "optimizer": self.optimizer.state()}
        groups |= {"losses": {"since_validation": self.since_validation}, "carried": carried}
        if self.world.leads:
            self.run.checkpoints.save(self.state, groups)
        else:
            for group in groups.values():
                send_rows(group)

    def _weights(self) -> dict[str, Stored]:
        model = self.run.model
        return stored(model.state_dict(), model.per_item, model.items, self.world)

    def _resume(self) -> None:
        state, groups = self._found() if self.world.leads else (None, None)
        told = self.world.told(state and asdict(state))
        if told is None:
            self.world.broadcast([value for value in self._weights().values() if isinstance(value, Tensor)])
            return
        self.state, self.since_validation = TrainingState(**told), self._taken(groups, "losses", {})["since_validation"]
        self._taken(groups, "model", self._weights())
        self.optimizer.restore(self._taken(groups, "optimizer", self.optimizer.state()))
        self.run.objective.carried.restore(self._taken(groups, "carried", {}))
        log.info("resumed", step=self.state.step, best=round(self.state.best, 4))
        if self.state.processes != self.world.size:
            log.warning("goes on with another number of processes", before=self.state.processes, now=self.world.size)
            self.state.processes = self.world.size

    def _taken(self, groups: TensorGroups | None, name: str, own: Mapping[str, Stored]) -> dict[str, Tensor]:
        """A group of the leader's checkpoint: into what processes have of it already, and what else is in it."""
        file = None if groups is None else groups[name]
        for key, value in own.items():
            if isinstance(value, ShardedRows):
                value.fill(None if file is None else partial(file.rows, key))
            else:
                if file is not None:
                    file.copy(key, value)
                self.world.broadcast([value])
        return self.world.given({} if file is None else {key: file[key] for key in file if key not in own})

    def _found(self) -> tuple[TrainingState, TensorGroups] | tuple[None, None]:
        """The newest checkpoint, if it is one of this training."""
        found = self.run.checkpoints.load()
        if found is None:
            return None, None
        if self._fits(found[1]):
            return found
        log.warning("starts anew: the checkpoint is of another version of this program", step=found[0].step)
        self.run.checkpoints.clear()
        return None, None

    def _fits(self, groups: TensorGroups) -> bool:
        """Does a checkpoint hold what this model and this optimizer need? Asked before anything is changed."""
        if not {"model", "optimizer", "losses", "carried"} <= groups.keys():
            return False
        expected = {name: value.shape for name, value in self._weights().items()}
        return expected == groups["model"].shapes and self.optimizer.fits(groups["optimizer"].shapes)


def _rate(settings: TrainSettings, step: int) -> float:
    rate = settings.optimizer.learning_rate * min(1.0, (step + 1) / max(1, settings.optimizer.warmup_steps))
    if settings.optimizer.schedule == "cosine":
        least = settings.optimizer.final_share
        rate *= least + (1 - least) / 2 * (1 + math.cos(math.pi * step / settings.steps))
    return rate
