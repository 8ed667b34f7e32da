"""Run a stage once: an artifact's id is a function of its settings and inputs, so what is there need not be made again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from retrieval.core.artifacts import Artifact, StagedArtifact, Workspace
from retrieval.core.logging import get_logger
from retrieval.core.settings import fingerprint

# Raised when the bytes a stage writes for the same settings change, so that old artifacts are not taken for new ones.
FORMATS = {"dataset": 1, "model": 1, "vectors": 1, "index": 1, "candidates": 1, "measurements": 1, "report": 1}
log = get_logger("run")


@dataclass(frozen=True)
class StageRecord:
    """What became of one stage in this process."""

    stage: str
    artifact: Artifact
    skipped: bool


@dataclass
class Stages:
    """A workspace and the record of the stages that went through it."""

    workspace: Workspace
    records: list[StageRecord] = field(default_factory=list)

    def ensure(
        self,
        stage: str,
        kind: str,
        *,
        settings: Mapping[str, Any],
        inputs: Mapping[str, str],
        write: Callable[[StagedArtifact], None],
    ) -> Artifact:
        """The artifact of these settings and inputs: found, verified and reused, or written now.

        Raises:
            IntegrityError: it is there and damaged.
        """
        artifact_id = artifact_identity(kind, settings, inputs)
        artifact = self.workspace.find(kind, artifact_id)
        skipped = artifact is not None
        if artifact is None:
            log.info("stage", stage=stage, artifact=f"{kind}/{artifact_id}")
            with self.workspace.create(kind, artifact_id, settings=settings, inputs=inputs) as staged:
                write(staged)
            artifact = self.workspace.open(kind, artifact_id)
        else:
            artifact.verify()
            log.info("stage unchanged, skipped", stage=stage, artifact=f"{kind}/{artifact_id}")
        self.records.append(StageRecord(stage, artifact, skipped))
        return artifact


def artifact_identity(kind: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """The id of the artifact that a stage makes of these settings and inputs."""
    return fingerprint({"kind": kind, "format": FORMATS[kind], "settings": dict(settings), "inputs": dict(inputs)})
