"""Checkpoints: safetensors and a small JSON with their sha256, renamed into place."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from retrieval.core.artifacts import write_json
from retrieval.core.errors import IntegrityError
from retrieval.training.sharded_rows import Stored
from retrieval.training.tensor_files import TensorFile, compare, write_tensors

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


class TensorGroups(Mapping[str, TensorFile]):
    """The groups of tensors of a checkpoint, nothing of which is read before it is asked for: together they may not fit."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self._folder, self._names = folder, names

    def __getitem__(self, name: str) -> TensorFile:
        if name not in self._names:
            raise KeyError(name)
        return TensorFile(self._folder / f"{name}.safetensors")

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

    def save(self, state: TrainingState, tensors: Mapping[str, Mapping[str, Stored]]) -> None:
        """Write one file a group of tensors, in their order, and the state, then drop all but the newest two."""
        staging = self.folder / f".step-{state.step:09d}-{os.getpid()}"
        # Also those of processes that were killed in it: of a large model they fill the disk.
        for left in self.folder.glob(".step-*"):
            shutil.rmtree(left, ignore_errors=True)
        staging.mkdir(parents=True)
        digests = {name: write_tensors(staging / f"{name}.safetensors", group) for name, group in tensors.items()}
        if self._best_sha256:
            _link(self._best, staging / self._best.name)
            digests[_BEST] = self._best_sha256
        write_json(staging / "state.json", {"state": asdict(state), "sha256": digests})
        target = self.folder / f"step-{state.step:09d}"
        shutil.rmtree(target, ignore_errors=True)
        staging.rename(target)
        for old in self._found()[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def keep_best(self, tensors: Mapping[str, Stored]) -> None:
        """These are the best weights until others are kept."""
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = self._best.with_suffix(".new")
        self._best_sha256 = write_tensors(fresh, tensors)
        fresh.replace(self._best)

    def best(self) -> TensorFile | None:
        """The weights that were kept last; None where none were.

        Raises:
            IntegrityError: the file changed since.
        """
        if not self._best_sha256:
            return None
        compare(self._best, self._best_sha256)
        return TensorFile(self._best)

    def give_best(self, path: Path) -> None:
        """Put the weights that were kept last where `path` says, without reading them into memory.

        Raises:
            IntegrityError: the file changed since.
        """
        compare(self._best, self._best_sha256)
        _link(self._best, path)

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
        for path in [*self._found(), *self.folder.glob(f"{_BEST}.*")]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
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
            compare(path / f"{name}.safetensors", digest)
        return TrainingState(**record["state"]), record["sha256"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"checkpoint is damaged: {error}", where=path) from None


def _link(source: Path, target: Path) -> None:
    """The same file under a second name; a copy where the file system knows no links."""
    fresh = target.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    try:
        fresh.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, fresh)
    fresh.replace(target)
