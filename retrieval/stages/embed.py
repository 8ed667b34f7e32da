"""embed: model -> item vectors."""

import numpy as np
import torch

from retrieval.core.arrays import save_array
from retrieval.core.artifacts import StagedArtifact
from retrieval.core.errors import IntegrityError
from retrieval.models.retrieval_model import AbstractRetrievalModel


@torch.no_grad()
def write_vectors(model: AbstractRetrievalModel, model_id: str, catalog_fingerprint: str, staged: StagedArtifact) -> None:
    """Write items.npy: float32 [N,D], row = item row of the catalog.

    Raises:
        IntegrityError: a vector is not finite.
    """
    vectors = model.eval().all_items().cpu().numpy().astype(np.float32)
    if not np.isfinite(vectors).all():
        raise IntegrityError("the model gives item vectors that are not finite", where=f"model {model_id}", remedy="train it again")
    save_array(staged.path("items.npy"), vectors)
    staged.summary |= {
        "items": len(vectors),
        "dimension": vectors.shape[1],
        "model_id": model_id,
        "catalog_fingerprint": catalog_fingerprint,
    }
