"""Recall and embedding over Ray: a shard is a task, which does what `recall --shard` does, or writes a part of an export; whoever gave the
orders joins what was written.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from retrieval.core.artifacts import Artifact, Workspace, library_versions
from retrieval.core.errors import ConflictError, ResourceError
from retrieval.core.logging import configure_logging, get_logger
from retrieval.core.progress import progress
from retrieval.models.device import choose_device
from retrieval.stages.audience import Scope
from retrieval.stages.crew import use_threads
from retrieval.stages.ensure import Stages
from retrieval.stages.export import ExportSettings, export_part
from retrieval.stages.over_ray import Order, Task, run_tasks
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recipe import MachineSettings, Recipe

_PATIENCE_SECONDS, _PAUSE_SECONDS = 60.0, 0.5
_EVENTS_FROM = 20
"""Logging's number for INFO."""
_Made = TypeVar("_Made")
log = get_logger("recall")


def make_shards(pipeline: Pipeline, shards: Sequence[Scope], index: Artifact) -> None:
    """Make those of the shards of a recall that are not in the workspace yet, as tasks.

    Raises:
        ResourceError: as `run_tasks`, or a node does not see the workspace. RetrievalError: of a shard.
    """
    missing = [scope for scope in shards if pipeline.found(scope, index) is None]
    orders = {f"{each.shard}/{each.shards}": {"scope": each.model_dump(), "index": index.id} for each in missing}
    _carry_out(pipeline, make_shard, orders, "recall", len(shards))


def make_export_parts(pipeline: Pipeline, settings: ExportSettings, scratch: Path, numbers: Sequence[int]) -> None:
    """Make some of the users' parts of an export in its scratch space, as tasks. Raises as `make_shards`."""
    same = {"settings": settings.model_dump(mode="json"), "scratch": str(scratch.resolve())}
    _carry_out(pipeline, make_export_part, {f"part {number}": {**same, "number": number} for number in numbers}, "embed", len(numbers))


def _carry_out(pipeline: Pipeline, task: Task, orders: dict[str, dict[str, Any]], what: str, total: int) -> None:
    """Give a task its orders, each with what all have in common; of the total, the others are done."""
    machine, device = pipeline.recipe.machine, choose_device(pipeline.recipe.machine.device)
    one = machine.model_copy(update={"threads": machine.threads or 1, "device": str(device), "engine": "local"})
    shared = json.dumps(_shared(pipeline, one))
    given = {name: {**order, "shared": shared} for name, order in orders.items()}
    log.info("shards over Ray", shards=total, missing=len(given), threads=one.threads)
    with progress(what, total, done=total - len(given)) as bar:
        for name, done in run_tasks(task, given, machine.ray, threads=one.threads, on_gpu=device.type == "cuda"):
            bar.advance()
            log.info("shard done", shard=name, **done)


def _shared(pipeline: Pipeline, machine: MachineSettings) -> dict[str, Any]:
    """What the orders of all shards say."""
    return {
        "recipe": pipeline.recipe.model_copy(update={"machine": machine}).model_dump(mode="json", by_alias=True),
        "folder": str(Path.cwd()),
        "workspace": str(pipeline.stages.workspace.root.resolve()),
        "dataset": pipeline.dataset_artifact.id,
        "libraries": library_versions(),
    }


def make_shard(order: Order) -> dict[str, Any]:
    """A task: make the shard, or find it made by a process that was taken for dead.

    Raises:
        ResourceError: this node has other libraries, or does not see the workspace. RetrievalError: of the shard.
    """
    started, pipeline = time.perf_counter(), _opened(order["shared"])
    scope, index = Scope.model_validate(order["scope"]), _index(pipeline, order["index"])
    shard = _patiently(lambda: pipeline.candidates(scope, index))
    return _done(started, shard.summary["users"])


def make_export_part(order: Order) -> dict[str, Any]:
    """A task: write a part of an export. Raises as `make_shard`."""
    started, pipeline = time.perf_counter(), _opened(order["shared"])
    settings, scratch = ExportSettings.model_validate(order["settings"]), _seen(Path(order["scratch"]))
    written = _patiently(lambda: export_part(pipeline.exported, settings, scratch, order["number"]))
    return _done(started, written["users"])


def _done(started: float, users: int) -> dict[str, Any]:
    return {"users": users, "seconds": round(time.perf_counter() - started, 3), "node": os.uname().nodename}


def _patiently(make: Callable[[], _Made]) -> _Made:
    """A node that Ray has lost may live on for a while: the lock is its until it ends or notices."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return make()
        except ConflictError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_SECONDS)


@lru_cache(maxsize=1)
def _opened(shared: str) -> Pipeline:
    """What the shards that this process makes have in common: verified and loaded once."""
    given = json.loads(shared)
    _require_same_libraries(given["libraries"])
    configure_logging(as_json=True, level=_EVENTS_FROM)
    workspace = Workspace(_seen(Path(given["workspace"])))
    os.chdir(_seen(Path(given["folder"])))
    recipe = Recipe.model_validate(given["recipe"])
    use_threads(recipe)
    pipeline = Pipeline(recipe, Stages(workspace, begins=_only_recall))
    # Found by its id: the log that it was made of may be anywhere, and hashing it would take long.
    pipeline.dataset_artifact = workspace.open("dataset", given["dataset"])
    return pipeline


@lru_cache(maxsize=1)
def _index(pipeline: Pipeline, index: str) -> Artifact:
    return pipeline.stages.workspace.open("index", index)


def _require_same_libraries(expected: dict[str, str]) -> None:
    found = library_versions()
    strange = [name for name in expected if found.get(name) != expected[name]]
    if strange:
        name = strange[0]
        raise ResourceError(
            f"{name} {found.get(name, 'is missing')}",
            where=os.uname().nodename,
            expected=expected[name],
            remedy="install the same on all nodes",
        )


def _seen(path: Path) -> Path:
    if not path.is_dir():
        raise ResourceError("is not there", where=f"{path} on {os.uname().nodename}", remedy="mount it at the same path on every node")
    return path


def _only_recall(stage: str, *_: str) -> None:
    """A worker that came to train a model would do so on every node."""
    if not stage.startswith("recall"):
        raise ResourceError(
            f"the artifact of {stage} is not there", where=os.uname().nodename, remedy="is it the same workspace on every node?"
        )
