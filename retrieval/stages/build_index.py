"""build-index: item vectors -> index, measured against exact search on the queries that will come."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.core.artifacts import Artifact, StagedArtifact
from retrieval.core.errors import IntegrityError
from retrieval.index.abstract import AbstractIndex
from retrieval.index.exact.index import ExactIndex
from retrieval.index.quality import measure_recall, require_recall
from retrieval.index.settings import IndexSettings
from retrieval.index.table import build_index, read_index
from retrieval.stages.recipe import Recipe

_JUDGED_AT = 100


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """What an index is a function of, besides its vectors."""
    return recipe.index.model_dump(exclude={"threads", "block_mb", "engine", "mmap", "rebuild_share"})


def index_settings(recipe: Recipe) -> IndexSettings:
    """The recipe's index settings on this machine's threads."""
    return recipe.index.model_copy(update={"threads": recipe.index.threads or recipe.machine.threads})


def write_index(settings: IndexSettings, vectors: Artifact, queries: NDArray[np.float32], scratch: Path, staged: StagedArtifact) -> None:
    """Build, write, read back and measure.

    Args:
        settings: of the index.
        vectors: the artifact with items.npy.
        queries: float32 [Q,D], interests of real users.
        scratch: a directory that outlives the process; a build that was killed goes on from it.
        staged: gets index.faiss and the measured recall.

    Raises:
        QualityGateError: the index finds less than `min_recall` of the exact result.
    """
    items = load_vectors(vectors)
    index = build_index(items, settings, scratch)
    path = staged.path("index.faiss")
    index.write(path)
    # What is measured is what is read back: a file that lost something must not pass on the strength of the original.
    written = read_index(path, settings, count=len(items), dimension=items.shape[1])
    recall = 1.0 if written.is_exact else measure_recall(written, ExactIndex(items, settings), queries, _JUDGED_AT)
    require_recall(recall, settings.min_recall)
    staged.summary |= {
        "factory": settings.factory,
        "metric": "inner product",
        "count": index.count,
        "dimension": index.dimension,
        "device": index.device,
        f"recall@{_JUDGED_AT}": recall,
        "queries": len(queries),
        "vectors_id": vectors.id,
        "model_id": vectors.summary["model_id"],
        "catalog_fingerprint": vectors.summary["catalog_fingerprint"],
    }


def load_vectors(vectors: Artifact) -> NDArray[np.float32]:
    """The item vectors float32 [N,D], mapped read-only."""
    items: NDArray[np.float32] = np.load(vectors.file("items.npy"), mmap_mode="r", allow_pickle=False)
    return items


def open_index(artifact: Artifact, vectors: Artifact, settings: IndexSettings) -> AbstractIndex:
    """The index, if it is of these vectors.

    Raises:
        IntegrityError: it was built for another model or catalog, or is damaged.
    """
    for name, wanted in (("model_id", vectors.summary["model_id"]), ("catalog_fingerprint", vectors.summary["catalog_fingerprint"])):
        found = artifact.summary.get(name)
        if found != wanted:
            raise IntegrityError(
                f"was built for {name} {found}", where=artifact.path, expected=str(wanted), remedy="run build-index for this model"
            )
    return read_index(artifact.file("index.faiss"), settings, count=vectors.summary["items"], dimension=vectors.summary["dimension"])
