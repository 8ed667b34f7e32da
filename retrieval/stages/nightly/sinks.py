"""Where else a night's figures go: experiment trackers, each only if it is installed and asked for."""

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

from retrieval.core.errors import ResourceError
from retrieval.core.secrets import redacted
from retrieval.stages.nightly.records import NightRecord
from retrieval.stages.nightly.settings import Tracking

Curve = list[dict[str, float]]
"""Points of a training, each with its step."""


def require_installed(tracking: Tracking) -> None:
    """Raise ResourceError where a tracker that is asked for is not here; before a night begins and not when it is done."""
    for name in tracking.sinks:
        if importlib.util.find_spec(name) is None:
            raise ResourceError(f"{name} is not installed", where="nightly.tracking.sinks", remedy=_REMEDIES[name])


def track(tracking: Tracking, record: NightRecord, curve: Curve) -> None:
    """Send a night's figures and its training curve to every tracker that is asked for."""
    for name in tracking.sinks:
        _SINKS[name](tracking.to, record, curve)


def figures(record: NightRecord) -> dict[str, float]:
    """Name -> figure of a night: what stages cost, what gates found, the primary metric. Names hold only what trackers allow."""
    found = {f"stage/{each.stage}/seconds": each.seconds for each in record.stages}
    found |= {f"stage/{each.stage}/peak_memory_bytes": float(each.peak_memory_bytes) for each in record.stages}
    found |= {f"gate/{each.name}": each.value for each in record.gates if each.value is not None}
    measured = {name: value["mean"] for name, value in record.headline.items() if isinstance(value, dict) and value.get("mean") is not None}
    found |= measured | {"seconds": record.seconds, "rows": float(record.rows), "exit_code": float(record.exit_code or 0)}
    return {name.replace("@", "_at_").replace(":", "/").replace(" ", "_"): float(value) for name, value in found.items()}


def _to_mlflow(to: str, record: NightRecord, curve: Curve) -> None:
    import mlflow

    if to:
        mlflow.set_tracking_uri(to)
    mlflow.set_experiment(record.recipe)
    with mlflow.start_run(run_name=record.run):
        mlflow.set_tags({"status": record.status, "version": str(record.published), "trained": redacted(record.trained)})
        mlflow.log_metrics(figures(record))
        for point in curve:
            mlflow.log_metrics(_of_training(point), step=int(point["step"]))


def _to_tensorboard(to: str, record: NightRecord, curve: Curve) -> None:
    from tensorboard.summary import Writer

    writer = Writer(f"{to or 'runs'}/{record.recipe}/{record.run}")
    try:
        # A night is a step of the recipe's series, its day.
        for name, value in figures(record).items():
            writer.add_scalar(f"night/{name}", value, int(record.date.replace("-", "")))
        for point in curve:
            for name, value in _of_training(point).items():
                writer.add_scalar(name, value, int(point["step"]))
    finally:
        writer.close()


def _of_training(point: Mapping[str, Any]) -> dict[str, float]:
    numbers = {name: value for name, value in point.items() if name != "step" and isinstance(value, (int, float))}
    return {f"training/{name}".replace("@", "_at_"): float(value) for name, value in numbers.items()}


_SINKS: dict[str, Callable[[str, NightRecord, Curve], None]] = {"mlflow": _to_mlflow, "tensorboard": _to_tensorboard}
_REMEDIES = {name: f"pip install 'multi-interest-retrieval[tracking]', or leave {name} out of the recipe" for name in _SINKS}
