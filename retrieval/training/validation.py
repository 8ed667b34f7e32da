"""Recall of held-out users while training: exact, unsampled, over the whole catalog."""

import torch
from jaxtyping import Int
from torch import Tensor

from retrieval.models.retrieval_model import AbstractRetrievalModel, RetrievalModel
from retrieval.training.distributed import ALONE, World
from retrieval.training.health import joined_parts, observe, summarise_health
from retrieval.training.held_out import HeldOut, ValidationSettings
from retrieval.training.ranking import ranked_by_all, ranked_by_each


@torch.no_grad()
def validate(model: AbstractRetrievalModel, held_out: HeldOut, settings: ValidationSettings, world: World = ALONE) -> dict[str, float]:
    """recall@n (mean over users) and the health of the interests; the model is left in its mode.

    Several processes take some of the users each, and all get the figures of all users.
    """
    was_training = model.training
    model.eval()
    total = len(held_out.cut)
    if isinstance(model, RetrievalModel) and model.items.sharded:
        n_items, ranked = model.items.n_items, ranked_by_all(model, held_out, settings, world)
    else:
        items = model.all_items()
        n_items, ranked = len(items), ranked_by_each(model, items, held_out, settings, world)
    recalls, parts = [], []
    for users, interests, best in ranked:
        recalls.append(_hits(held_out, users, best.rows, n_items) / held_out.n_targets[users])
        parts.append(observe(interests, best.winners))
    model.train(was_training)
    sharing = world.among(total)
    recall = sharing.joined(torch.cat(recalls).double(), total).mean()
    return {f"recall@{settings.n}": float(recall), **summarise_health(joined_parts(parts, sharing, total))}


def _hits(held_out: HeldOut, users: Tensor, top: Int[Tensor, "B n"], n_items: int) -> Int[Tensor, " B"]:
    keys = users[:, None] * n_items + top
    found = torch.searchsorted(held_out.target_keys, keys).clamp(max=len(held_out.target_keys) - 1)
    return (held_out.target_keys[found] == keys).sum(dim=1)
