"""build-index: item vectors -> index, measured against exact search on the queries that will come."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.core.artifacts import Artifact, StagedArtifact
from retrieval.core.errors import IntegrityError, QualityGateError
from retrieval.core.parts import own_scratch
from retrieval.index.abstract import AbstractIndex
from retrieval.index.choice.judge import Finding, Judge
from retrieval.index.exact.index import oracle
from retrieval.index.settings import IndexSettings
from retrieval.index.table import build_index, read_index
from retrieval.stages.index_choice import Decision, decide, make_search
from retrieval.stages.recipe import Recipe
from retrieval.stages.user_vectors import UserInterests


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """What an index is a function of, besides its vectors."""
    return recipe.index.model_dump(exclude={"threads", "block_mb", "engine", "mmap", "rebuild_share"})


def index_settings(recipe: Recipe) -> IndexSettings:
    """The recipe's index settings on this machine's threads."""
    return recipe.index.model_copy(update={"threads": recipe.index.threads or recipe.machine.threads})


def write_index(
    settings: IndexSettings, vectors: Artifact, users: UserInterests, blocked: NDArray[np.bool_], staged: StagedArtifact
) -> None:
    """Choose or take the kind of index, build, write, read back and measure; a build that was killed goes on where it was.

    Args:
        settings: of the index.
        vectors: the artifact with items.npy.
        users: interests of real users, whose lists judge the index.
        blocked: bool [N], items in the index that recall never gives, whatever is filtered.
        staged: gets index.faiss, what the index was chosen from, and the measured recall with the gate's verdict.

    Raises:
        ConflictError: another process builds the same index.
    """
    with own_scratch(staged, "build-index") as scratch:
        _write_index(settings, vectors, users, blocked, staged, scratch)


def _write_index(
    settings: IndexSettings, vectors: Artifact, users: UserInterests, blocked: NDArray[np.bool_], staged: StagedArtifact, scratch: Path
) -> None:
    items, path = load_vectors(vectors), staged.path("index.faiss")
    decision = _written(settings, items, users, blocked, staged, scratch)
    built = settings if decision is None else settings.model_copy(update=decision.search)
    # What is measured is what is read back: a file that lost something must not pass on the strength of the original.
    index = read_index(path, built, count=len(items), dimension=items.shape[1])
    finding = _finding(index, items, users, settings, blocked)
    staged.summary |= {
        "factory": built.factory,
        "metric": "inner product",
        "count": index.count,
        "dimension": index.dimension,
        "device": index.device,
        f"recall@{settings.choose.n}": finding.recall,
        "queries": int(users.valid.sum()),
        "gate": _gate(settings, finding, decision),
        "search": {} if decision is None else decision.search,
        "vectors_id": vectors.id,
        "model_id": vectors.summary["model_id"],
        "catalog_fingerprint": vectors.summary["catalog_fingerprint"],
    }


def _written(
    settings: IndexSettings,
    items: NDArray[np.float32],
    users: UserInterests,
    blocked: NDArray[np.bool_],
    staged: StagedArtifact,
    scratch: Path,
) -> Decision | None:
    """Write the index, and let go of it before it is read back: two of them would be the most memory of the stage."""
    decision = decide(settings, items, users, blocked, staged) if settings.choose.target_recall else None
    built = settings if decision is None else settings.model_copy(update=decision.search)
    index = decision.index if decision and decision.index else build_index(items, built, scratch)
    index.write(staged.path("index.faiss"))
    return None if decision is None else replace(decision, index=None)


def _finding(
    index: AbstractIndex, items: NDArray[np.float32], users: UserInterests, settings: IndexSettings, blocked: NDArray[np.bool_]
) -> Finding:
    if index.is_exact:
        return Finding(1.0, 1.0)
    n = settings.choose.n
    judge = Judge(oracle(items, settings), users.vectors, users.valid, n, blocked)
    return judge.finding(make_search(n, settings.threads)(index, items, blocked))


def _gate(settings: IndexSettings, finding: Finding, decision: Decision | None) -> dict[str, Any]:
    """What the index had to hold, and whether it does."""
    if decision is None:
        wanted, held = {"setting": "index.min_recall", "wanted": settings.min_recall}, finding.recall >= settings.min_recall
    else:
        target = settings.choose.target_recall
        wanted, held = {"setting": "index.choose.target_recall", "wanted": target}, decision.held and finding.lower >= target
    return {**wanted, "recall": finding.recall, "lower_bound": finding.lower, "held": held, "verdict": decision.verdict if decision else ""}


def require_gate(index: Artifact) -> None:
    """Raise QualityGateError when an index did not hold what its settings demanded."""
    gate = index.summary.get("gate", {"held": True})
    if gate["held"]:
        return
    chosen = gate["setting"] == "index.choose.target_recall"
    limits = f" ({gate['verdict']})" if chosen else ""
    raise QualityGateError(
        f"the best index within the limits finds {gate['recall']:.4f} of the exact result, surely {gate['lower_bound']:.4f}{limits}"
        if chosen
        else f"the index finds {gate['recall']:.4f} of the exact result",
        where=f"{gate['setting']} of {index.path}",
        expected=f"at least {gate['wanted']:g}",
        remedy=f"allow more memory or latency, ask for less, or delete {index.path} to measure again"
        if chosen
        else "raise nprobe or ef_search, or use factory = 'exact'",
    )


def load_vectors(vectors: Artifact) -> NDArray[np.float32]:
    """The item vectors float32 [N,D], mapped read-only."""
    items: NDArray[np.float32] = np.load(vectors.file("items.npy"), mmap_mode="r", allow_pickle=False)
    return items


def open_index(artifact: Artifact, vectors: Artifact, settings: IndexSettings) -> AbstractIndex:
    """The index, if it is of these vectors; one that was chosen is searched as it was judged.

    Raises:
        QualityGateError: it did not hold what was demanded of it when it was built.
        IntegrityError: it was built for another model or catalog, or is damaged.
    """
    require_gate(artifact)
    settings = settings.model_copy(update=artifact.summary.get("search", {}))
    for name, wanted in (("model_id", vectors.summary["model_id"]), ("catalog_fingerprint", vectors.summary["catalog_fingerprint"])):
        found = artifact.summary.get(name)
        if found != wanted:
            raise IntegrityError(
                f"was built for {name} {found}", where=artifact.path, expected=str(wanted), remedy="run build-index for this model"
            )
    return read_index(artifact.file("index.faiss"), settings, count=vectors.summary["items"], dimension=vectors.summary["dimension"])
