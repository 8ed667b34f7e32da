"""Run a stage once: an artifact's id is a function of its settings and inputs, so what is there need not be made again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retrieval.core.artifacts import MANIFEST, Artifact, StagedArtifact, Workspace, open_artifact
from retrieval.core.errors import ConflictError
from retrieval.core.formats import format_of
from retrieval.core.logging import bound, get_logger
from retrieval.core.settings import fingerprint

log = get_logger("run")


@dataclass(frozen=True)
class StageRecord:
    """What became of one stage in this process."""

    stage: str
    artifact: Artifact
    skipped: bool


def _unheard(*_: object) -> None:
    """Nobody listens."""


@dataclass
class Stages:
    """A workspace and the record of the stages that went through it."""

    workspace: Workspace
    records: list[StageRecord] = field(default_factory=list)
    begins: Callable[[str, str, str], None] = _unheard
    """Called with a stage, its kind and its id before it is made, and not where it is found."""
    ended: Callable[[StageRecord], None] = _unheard
    """Called after every stage."""

    def ensure(
        self,
        stage: str,
        kind: str,
        *,
        settings: Mapping[str, Any],
        inputs: Mapping[str, str],
        write: Callable[[StagedArtifact], None],
        folder: Path | None = None,
    ) -> Artifact:
        """The artifact of these settings and inputs: found, verified and reused, or written now.

        `folder` is where it lies in place of the workspace.

        Raises:
            IntegrityError: it is there and damaged. ConflictError: the folder holds something else.
        """
        artifact_id = artifact_identity(kind, settings, inputs)
        workspace = self.workspace if folder is None else Workspace(folder.parent)
        artifact = workspace.find(kind, artifact_id) if folder is None else _in_folder(folder, artifact_id)
        skipped = artifact is not None
        if artifact is None:
            log.info("stage", artifact=f"{kind}/{artifact_id}", stage=stage)
            self.begins(stage, kind, artifact_id)
            with bound(stage=stage), workspace.create(kind, artifact_id, settings=settings, inputs=inputs, target=folder) as staged:
                write(staged)
            artifact = workspace.open(kind, artifact_id) if folder is None else open_artifact(folder)
        else:
            artifact.verify()
            log.info("stage unchanged, skipped", stage=stage, artifact=f"{kind}/{artifact_id}")
        # Not before the artifact is committed: a disk that is full at the end must not cost the work.
        workspace.drop_scratch(kind, artifact_id)
        if folder is not None:
            workspace.drop_staging()
        self.records.append(StageRecord(stage, artifact, skipped))
        self.ended(self.records[-1])
        return artifact


def _in_folder(folder: Path, artifact_id: str) -> Artifact | None:
    """The artifact in a folder, None where the folder is empty or not there."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    artifact = open_artifact(folder) if (folder / MANIFEST).is_file() else None
    if artifact is None or artifact.id != artifact_id:
        raise ConflictError(
            "holds something else" if artifact is None else f"holds {artifact.kind} {artifact.id}",
            where=folder,
            expected=f"an empty folder, or {artifact_id} from an earlier run",
            remedy="choose another folder, or remove this one",
        )
    return artifact


def artifact_identity(kind: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """The id of the artifact that a stage makes of these settings and inputs."""
    return fingerprint({"kind": kind, "format": format_of(kind), "settings": dict(settings), "inputs": dict(inputs)})
