"""Tasks over Ray, which schedules them and runs again those whose process or node died; they read and write files that all nodes see.

Unless told of a cluster, one is started on this machine: on loopback, with a random token that its clients must show, without
dashboard and usage reports.
"""

import contextlib
import os
import secrets
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module, util
from typing import Any

from pydantic import Field

from retrieval.core.errors import ResourceError, RetrievalError
from retrieval.core.logging import get_logger
from retrieval.core.resources import available_threads
from retrieval.core.secrets import redacted
from retrieval.core.settings import Settings

Order = Mapping[str, Any]
"""What a task is told, as plain values."""
Task = Callable[[Order], dict[str, Any]]
_OBJECT_STORE_BYTES = 80 << 20
"""Ray's least. Tasks get and return a few hundred bytes."""
_TO_START = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # A task that asks for no GPU sees none unless its order names the device, and Ray says so in a warning otherwise.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
# The name is of the systems where Ray does so by itself; everywhere else its processes listen on all interfaces.
_ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
log = get_logger("ray")


class RaySettings(Settings):
    """Over which cluster, and how. Never part of an artifact's identity.

    address: of a cluster (HOST:PORT); by default one is started on this machine and stopped at the end. shards: of a recall;
    0: one for each of its parts, so that it does not depend on the cluster. in_flight: tasks at once, at most; 0: as many as
    have cores. retries: of a task whose process or node died. hours: all tasks together may take.
    """

    address: str = ""
    shards: int = Field(0, ge=0)
    in_flight: int = Field(0, ge=0)
    retries: int = Field(3, ge=0)
    hours: float = Field(6.0, gt=0)


def plainly(task: Task) -> Task:
    """The same task with its errors as values: an error of this package says all in a line, and needs no class to travel.

    Freed of secrets here: the process that shows it does not know those of this node.
    """

    def tried(order: Order) -> dict[str, Any]:
        try:
            return task(order)
        except RetrievalError as error:
            return {"error": redacted(str(error)), "exit_code": error.exit_code}

    return tried


def run_tasks(
    task: Task, orders: Mapping[str, Order], settings: RaySettings, *, threads: int, on_gpu: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What the tasks return, by name, as they end. threads: cores that a task takes.

    Raises:
        ResourceError: Ray is not installed, the cluster is not there or has no node for a task, a task died once more than it
            may, or the time is up. RetrievalError: of a task.
    """
    deadline = time.monotonic() + 3600 * settings.hours
    with _cluster(settings, threads) as ray:
        _require_room(ray, threads, on_gpu=on_gpu)
        wanted = {"num_cpus": threads, "num_gpus": int(on_gpu), "max_retries": settings.retries, "scheduling_strategy": "SPREAD"}
        remote = ray.remote(**wanted)(plainly(task))
        todo, running = deque(orders.items()), dict[Any, str]()
        while todo or running:
            while todo and not 0 < settings.in_flight <= len(running):
                name, order = todo.popleft()
                running[remote.options(name=name).remote(order)] = name
            ended, _ = ray.wait(list(running), timeout=max(0.0, deadline - time.monotonic()))
            if not ended:
                raise _late(settings, orders, list(running.values()))
            for each in ended:
                name = running.pop(each)
                yield name, _outcome(ray, each, name)


def _outcome(ray: Any, reference: Any, name: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = ray.get(reference)
    except ray.exceptions.RayTaskError:
        # A bug in the task: its traceback says more than any line.
        raise
    except ray.exceptions.RayError as error:
        what = f"died more often than machine.ray.retries allows: {type(error).__name__}"
        raise ResourceError(what, where=f"task {name}", remedy="see Ray's logs on its node, then run the same command again") from None
    if "error" in found:
        classes = {each.exit_code: each for each in RetrievalError.__subclasses__()}
        raise classes.get(found["exit_code"], RetrievalError)(found["error"], where=f"task {name}")
    return found


def _late(settings: RaySettings, orders: Mapping[str, Order], running: Sequence[str]) -> ResourceError:
    return ResourceError(
        f"{settings.hours:g} hours are over and {len(running)} of {len(orders)} tasks run still, such as {running[0]}",
        where="machine.ray.hours",
        remedy="run the same command again: what is finished stays",
    )


@contextlib.contextmanager
def _cluster(settings: RaySettings, threads: int) -> Iterator[Any]:
    """The library, connected to a cluster until the block ends."""
    own = not settings.address
    ray, folder = _library(own=own), tempfile.mkdtemp(prefix="ray-") if own else ""
    try:
        with _reported(settings.address or "this machine"):
            cores = max(available_threads(), threads * settings.in_flight)
            where = _started_here(folder, cores) if own else {"address": settings.address}
            ray.init(**where, log_to_driver=False, configure_logging=False)
        yield ray
    finally:
        ray.shutdown()
        if own:
            shutil.rmtree(folder, ignore_errors=True)


def _started_here(folder: str, cores: int) -> dict[str, Any]:
    return {
        "address": "local",
        "num_cpus": cores,
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE_BYTES,
        "_node_ip_address": "127.0.0.1",
        "_temp_dir": folder,
    }


def require_ray() -> None:
    """Raise ResourceError where Ray is not installed; before a run begins and not when its lists are due."""
    if util.find_spec("ray") is None:
        raise ResourceError("Ray is not installed", where="--engine ray", remedy="pip install 'multi-interest-retrieval[ray]'")


def _library(*, own: bool) -> Any:
    require_ray()
    # Read when Ray is imported, and handed on to the processes that it starts.
    for name, value in {**_TO_START, **(_ON_LOOPBACK if own else {})}.items():
        os.environ.setdefault(name, value)
    if own:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    return import_module("ray")


@contextlib.contextmanager
def _reported(where: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ConnectionError, ValueError, OSError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ResourceError(
            f"no Ray cluster: {first}", where=where, remedy="check machine.ray.address, RAY_AUTH_TOKEN and Ray's version"
        ) from None


def _require_room(ray: Any, threads: int, *, on_gpu: bool) -> None:
    """A task that no node can ever take would wait until the time is up."""
    nodes = [each["Resources"] for each in ray.nodes() if each["Alive"]]
    if not any(each.get("CPU", 0) >= threads and each.get("GPU", 0) >= on_gpu for each in nodes):
        most = max((int(each.get("CPU", 0)) for each in nodes), default=0)
        needed = f"{threads} cores{' and a GPU' if on_gpu else ''}"
        raise ResourceError(f"no node has {needed}", where="Ray", expected=f"at most {most} cores", remedy="lower machine.threads")
