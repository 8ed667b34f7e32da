"""The processes of one command under `torchrun`: the first one leads, the others train with it whenever it trains.

The leader runs the command as if it were alone. Where it comes to train a model, it tells the others what to
train; each reads the same dataset, and from then on they exchange gradients. Until then, and while the leader
prepares, evaluates or writes, the others sleep on the launcher's key-value store, which knows no hurry.
"""

import contextlib
import datetime as dt
import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from retrieval.core.artifacts import open_artifact
from retrieval.core.errors import InterruptedRunError, QualityGateError
from retrieval.core.ranks import Place, own_place
from retrieval.core.resources import available_threads
from retrieval.data.dataset import Dataset
from retrieval.models.device import choose_device
from retrieval.stages import train
from retrieval.stages.recipe import Recipe
from retrieval.training.distributed import World, join, leave

_PATIENCE = dt.timedelta(days=100)
"""For the leader to say something: it may have a long log to prepare."""
_A_MOMENT = dt.timedelta(seconds=10)


class Crew:
    """What the leader says to the others, one thing after the other, and the group they form for training."""

    def __init__(self, place: Place, store: Store) -> None:
        self.place, self._store = place, PrefixStore("crew", store)
        self._said = 0
        self._world: World | None = None

    def lead(self, recipe: Recipe, dataset: Path, start: Path | None, stop: int | None) -> World:
        """The group that trains a recipe on a dataset up to a step, `start` the model it begins with; the others hear of it and join."""
        paths = {"dataset": str(dataset.resolve()), "start": str(start.resolve()) if start else None}
        self._say({"recipe": recipe.model_dump(mode="json", by_alias=True), **paths, "stop": stop})
        return self._joined(recipe)

    def follow(self) -> int:
        """Train with the leader whenever it trains; returns the exit code it ends with."""
        while "end" not in (order := self._hear(_PATIENCE)):
            # Losses that are not finite and signals stop all alike, and it is the leader who says what follows from it.
            with contextlib.suppress(QualityGateError, InterruptedRunError):
                self._train(order)
        self._store.set(f"left/{self.place.rank}", "")
        return int(order["end"])

    def _train(self, order: dict[str, Any]) -> None:
        recipe = Recipe.model_validate(order["recipe"])
        use_threads(recipe)
        dataset = Dataset.open(open_artifact(Path(order["dataset"])))
        start = open_artifact(Path(order["start"])) if order["start"] else None
        train.train_along(train.Beginning(recipe, dataset, start, lambda _: self._joined(recipe)), order["stop"])

    def end(self, code: int) -> None:
        """The leader is done with this exit code; where all is well it stays until the others know."""
        self._say({"end": code})
        if code == 0:
            with contextlib.suppress(RuntimeError):
                self._store.wait([f"left/{rank}" for rank in range(1, self.place.size)], _A_MOMENT)

    def ended(self) -> int | None:
        """What the leader ends with, if it is ending just now: then an error of another process is its echo."""
        with contextlib.suppress(RuntimeError):
            while "end" not in (order := self._hear(_A_MOMENT)):
                pass
            return int(order["end"])
        return None

    def _say(self, words: dict[str, Any]) -> None:
        self._store.set(f"said/{self._said}", json.dumps(words))
        self._said += 1

    def _hear(self, patience: dt.timedelta) -> dict[str, Any]:
        key = f"said/{self._said}"
        self._store.wait([key], patience)
        self._said += 1
        words: dict[str, Any] = json.loads(self._store.get(key))
        return words

    def _joined(self, recipe: Recipe) -> World:
        if self._world is None:
            self._world = join(self.place, PrefixStore("training", self._store), choose_device(recipe.machine.device))
        return self._world


@cache
def crew() -> Crew | None:
    """Those of this command; None where it runs in one process."""
    place = own_place()
    return None if place.size == 1 else Crew(place, next(rendezvous("env://"))[0])


def disband() -> None:
    """Let go of the group, whatever state it is in: what was to be written is."""
    with contextlib.suppress(Exception):
        leave()


def use_threads(recipe: Recipe) -> None:
    """As many threads as the recipe says, or this process's share of the cores."""
    torch.set_num_threads(recipe.machine.threads or max(1, available_threads() // own_place().local_size))
