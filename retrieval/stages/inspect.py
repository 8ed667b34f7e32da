"""inspect: what an artifact is, where it came from, and whether it is intact."""

from pathlib import Path
from typing import Any

from retrieval.core.artifacts import MANIFEST, open_artifact
from retrieval.core.errors import UsageError
from retrieval.stages.gates import gates_of


def describe(path: Path) -> dict[str, Any]:
    """The facts of an artifact, after every file was checked.

    Raises:
        UsageError: there is no artifact. IntegrityError: it is damaged.
    """
    if not (path / MANIFEST).is_file():
        raise UsageError("no such artifact", where=path, expected="a directory such as workspace/model/ID")
    artifact = open_artifact(path)
    artifact.verify()
    manifest = artifact.manifest.model_dump()
    sizes = {name: f"{record['size']:,} bytes" for name, record in manifest.pop("files").items()}
    summary = manifest.pop("summary")
    gates = {f"gates of {row['tower']}: {row['field']}": _in_words(row["means"]) for row in gates_of(artifact)}
    return {**manifest, **summary, **gates, "files": sizes, "verified": "every file has the sha256 of the manifest"}


def _in_words(means: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in means.items())
