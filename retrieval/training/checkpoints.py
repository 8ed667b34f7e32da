"""Checkpoints: safetensors and a small JSON with their sha256, renamed into place."""

import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from retrieval.core.artifacts import sha256_of, write_json
from retrieval.core.errors import IntegrityError

_KEPT = 2


@dataclass
class TrainingState:
    """Where training stands, besides weights and optimizer state."""

    step: int = 0
    best: float = -1.0
    best_step: int = 0
    stale: int = 0
    """Validations since the best."""
    curve: list[dict[str, float | int]] = field(default_factory=list)


class Checkpoints:
    """The newest checkpoints of one training run in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, state: TrainingState, tensors: dict[str, dict[str, Tensor]]) -> None:
        """Write one file a group of tensors and the state, then drop all but the newest two."""
        staging = self.folder / f".step-{state.step:09d}-{os.getpid()}"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        for name, group in tensors.items():
            save_file({key: value.contiguous() for key, value in group.items()}, staging / f"{name}.safetensors")
        digests = {name: sha256_of(staging / f"{name}.safetensors") for name in tensors}
        write_json(staging / "state.json", {"state": asdict(state), "sha256": digests})
        target = self.folder / f"step-{state.step:09d}"
        shutil.rmtree(target, ignore_errors=True)
        staging.rename(target)
        for old in self._found()[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def load(self) -> tuple[TrainingState, dict[str, dict[str, Tensor]]] | None:
        """The newest intact checkpoint; a damaged one is passed over for the one before it."""
        for path in reversed(self._found()):
            try:
                return _read(path)
            except IntegrityError:
                continue
        return None

    def _found(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("step-*") if path.is_dir())


def _read(path: Path) -> tuple[TrainingState, dict[str, dict[str, Tensor]]]:
    try:
        record: dict[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
        tensors = {name: read_tensors(path / f"{name}.safetensors", digest) for name, digest in record["sha256"].items()}
        return TrainingState(**record["state"]), tensors
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"checkpoint is damaged: {error}", where=path) from None


def read_tensors(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file, after its bytes were compared with `sha256`.

    Raises:
        IntegrityError: the bytes changed, or they are no safetensors file.
    """
    if sha256 is not None and sha256_of(path) != sha256:
        raise IntegrityError("is damaged: its sha256 changed", where=path)
    try:
        # Read, not mapped: a mapped file that is replaced under a running process would crash it.
        return load(path.read_bytes())
    except SafetensorError as error:
        raise IntegrityError(f"is no safetensors file: {error}", where=path) from None


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as named tensors."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": torch.as_tensor(value) for number, values in state.items() for name, value in values.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put named tensors back into an optimizer over the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
