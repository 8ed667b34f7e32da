"""prepare: logs -> dataset, with what has to be generated or fetched first."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.core.artifacts import Artifact, StagedArtifact, Workspace, open_artifact
from retrieval.core.errors import IntegrityError
from retrieval.core.logging import get_logger
from retrieval.core.settings import fingerprint
from retrieval.data.files import FileState, input_fingerprint, input_state, require_unchanged
from retrieval.data.generator.generate import generate
from retrieval.data.prepare import prepare
from retrieval.data.quarantine import QUARANTINE
from retrieval.data.settings import DataSettings
from retrieval.stages.ensure import Stages
from retrieval.stages.fetch import fetch
from retrieval.stages.recipe import GENERATED, Recipe

_READ = ("time", "kinds", "fields")
"""What later stages read of a dataset's summary."""
logger = get_logger("prepare")


def sources_of(recipe: Recipe, stages: Stages) -> DataSettings:
    """The data settings with paths of this machine: what lies in an object store is fetched, a log that is to be generated generated."""
    if recipe.generate is None:
        return fetch(recipe.data, stages)
    folder = stages.workspace.root / "generated" / fingerprint(recipe.generate.model_dump())
    generate(recipe.generate, folder)
    return fetch(with_generated_paths(recipe.data, folder), stages)


def with_generated_paths(data: DataSettings, folder: Path) -> DataSettings:
    """Paths that begin with `generated/` point into `folder`."""
    generated = {name: path for name, path in data.paths.items() if path.startswith(GENERATED)}
    return data.at({name: str(folder / path.removeprefix(GENERATED)) for name, path in generated.items()})


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """What a dataset is a function of, besides the bytes of its sources: where they lie does not matter."""
    data = recipe.data.model_dump(mode="json")
    for name in ("interactions", "items", "users"):
        data[name].pop("path")
    return {"data": data, "split": recipe.split.model_dump(mode="json")}


def content_of(dataset: Artifact) -> str:
    """What later stages are a function of: what was prepared, and not the log that it was prepared from.

    A log that has grown since by rows that the dataset leaves out, such as those of the next day, gives a dataset of another id and the
    same content.
    """
    manifest = dataset.manifest
    files = {name: file.sha256 for name, file in manifest.files.items() if name != QUARANTINE}
    return fingerprint({"settings": manifest.settings, "files": files, **{name: manifest.summary.get(name) for name in _READ}})


def find_dataset(workspace: Workspace, content: str) -> Artifact | None:
    """A dataset of this content, or None."""
    for path in workspace.list("dataset"):
        # One that is damaged is nobody's.
        with contextlib.suppress(IntegrityError):
            found = open_artifact(path)
            if content_of(found) == content:
                return found
    return None


@dataclass(frozen=True)
class Log:
    """The sources of a dataset on this machine, and what their files were before they were hashed."""

    sources: DataSettings
    state: dict[str, FileState]
    inputs: dict[str, str]
    """The sha256 of each."""

    @classmethod
    def of(cls, sources: DataSettings) -> "Log":
        """Hash the files. Raises UsageError where there are none."""
        state = input_state(sources)
        return cls(sources, state, input_fingerprint(sources))


def write_dataset(recipe: Recipe, log: Log, rescue: Path, staged: StagedArtifact) -> None:
    """Validate, filter, index and split the log; where too many rows are bad, they are left at `rescue` to look at.

    Raises:
        ConflictError: a file of the log was written meanwhile. DataContractError: as `prepare`.
    """
    prepare(log.sources, recipe.split, staged, rescue=rescue)
    require_unchanged(log.sources, log.state)
    staged.summary["name"] = recipe.data.name
    for source, rules in staged.summary["quarantine"].items():
        logger.warning("rows in quarantine", source=source, **rules)
