"""Checkpoints: safetensors and a small JSON with their sha256, renamed into place."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from retrieval.core.artifacts import sha256_of, write_json
from retrieval.core.errors import IntegrityError

_KEPT = 2
_BEST = "best"


@dataclass
class TrainingState:
    """Where training stands, besides weights and optimizer state."""

    step: int = 0
    best: float = -1.0
    best_step: int = 0
    stale: int = 0
    """Validations since the best."""
    processes: int = 1
    """That trained it so far, the last time."""
    curve: list[dict[str, float | int]] = field(default_factory=list)


class TensorGroups(Mapping[str, dict[str, Tensor]]):
    """The groups of tensors of a checkpoint, each read when it is asked for: together they may not fit."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self._folder, self._names = folder, names

    def __getitem__(self, name: str) -> dict[str, Tensor]:
        if name not in self._names:
            raise KeyError(name)
        return read_tensors(self._folder / f"{name}.safetensors")

    def shapes(self, name: str) -> dict[str, tuple[int, ...]]:
        """The shapes of a group, without reading it."""
        with safe_open(self._folder / f"{name}.safetensors", "pt") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - no mapping

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Checkpoints:
    """The newest checkpoints of one training run in `folder`, and the best weights so far.

    The best weights lie on the disk and not in memory, where a large item table would take its size a second time.
    Every checkpoint holds a link to those of its time, so a restart from any of them ends alike.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._best_sha256 = ""

    def save(self, state: TrainingState, tensors: dict[str, dict[str, Tensor]]) -> None:
        """Write one file a group of tensors and the state, then drop all but the newest two."""
        staging = self.folder / f".step-{state.step:09d}-{os.getpid()}"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        digests = {name: _write(staging / f"{name}.safetensors", group) for name, group in tensors.items()}
        if self._best_sha256:
            _link(self._best, staging / self._best.name)
            digests[_BEST] = self._best_sha256
        write_json(staging / "state.json", {"state": asdict(state), "sha256": digests})
        target = self.folder / f"step-{state.step:09d}"
        shutil.rmtree(target, ignore_errors=True)
        staging.rename(target)
        for old in self._found()[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def keep_best(self, tensors: dict[str, Tensor]) -> None:
        """These are the best weights until others are kept."""
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = self._best.with_suffix(".new")
        self._best_sha256 = _write(fresh, tensors)
        fresh.replace(self._best)

    def best(self) -> dict[str, Tensor] | None:
        """The weights that were kept last; None where none were.

        Raises:
            IntegrityError: the file changed since.
        """
        return read_tensors(self._best, self._best_sha256) if self._best_sha256 else None

    def load(self) -> tuple[TrainingState, TensorGroups] | None:
        """The newest intact checkpoint; a damaged one is passed over for the one before it."""
        for path in reversed(self._found()):
            with contextlib.suppress(IntegrityError):
                state, digests = _read(path)
                self._best_sha256 = digests.get(_BEST, "")
                if self._best_sha256:
                    _link(path / self._best.name, self._best)
                return state, TensorGroups(path, list(digests))
        return None

    def clear(self) -> None:
        """Remove everything: what lies here belongs to another training."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._best_sha256 = ""

    @property
    def _best(self) -> Path:
        return self.folder / f"{_BEST}.safetensors"

    def _found(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("step-*") if path.is_dir())


def _read(path: Path) -> tuple[TrainingState, dict[str, str]]:
    """The state, and the sha256 of every file, all of which were compared."""
    try:
        record: dict[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
        for name, digest in record["sha256"].items():
            _compare(path / f"{name}.safetensors", digest)
        return TrainingState(**record["state"]), record["sha256"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"checkpoint is damaged: {error}", where=path) from None


def _write(path: Path, tensors: dict[str, Tensor]) -> str:
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    return sha256_of(path)


def _link(source: Path, target: Path) -> None:
    """The same file under a second name; a copy where the file system knows no links."""
    fresh = target.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    try:
        fresh.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, fresh)
    fresh.replace(target)


def read_tensors(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file, after its bytes were compared with `sha256`.

    Raises:
        IntegrityError: the bytes changed, or they are no safetensors file.
    """
    if sha256 is not None:
        _compare(path, sha256)
    try:
        # Read, not mapped: a mapped file that is replaced under a running process would crash it.
        return load_file(path, backend="pread")
    except SafetensorError as error:
        raise IntegrityError(f"is no safetensors file: {error}", where=path) from None


def _compare(path: Path, sha256: str) -> None:
    if sha256_of(path) != sha256:
        raise IntegrityError("is damaged: its sha256 changed", where=path)
