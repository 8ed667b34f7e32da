"""Recall of held-out users while training: exact, unsampled, over the whole catalog."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from retrieval.models.histories import gather_histories
from retrieval.models.interests import Interests
from retrieval.models.retrieval_model import AbstractRetrievalModel
from retrieval.training.distributed import ALONE, World
from retrieval.training.health import joined_parts, observe, summarise_health


@dataclass(frozen=True)
class HeldOut:
    """Users whose future is hidden: visible events [start, cut), targets as one sorted key user * N + item."""

    items: Int[Tensor, " E"]
    times: Int[Tensor, " E"]
    start: Int[Tensor, " V"]
    cut: Int[Tensor, " V"]
    target_keys: Int[Tensor, " T"]
    n_targets: Int[Tensor, " V"]

    def to(self, device: torch.device) -> "HeldOut":
        """The same on a device."""
        return HeldOut(*(getattr(self, field.name).to(device) for field in fields(self)))


@dataclass(frozen=True)
class ValidationSettings:
    """What is measured, and in which portions."""

    n: int = 50
    filter_seen: bool = False
    batch_users: int = 256
    scores: int = 1 << 25
    """Most scores held at a time: a large catalog makes the portions smaller."""


@torch.no_grad()
def validate(model: AbstractRetrievalModel, held_out: HeldOut, settings: ValidationSettings, world: World = ALONE) -> dict[str, float]:
    """recall@n (mean over users) and the health of the interests; the model is left in its mode.

    Several processes take some of the users each, and all get the figures of all users.
    """
    was_training = model.training
    model.eval()
    items = model.all_items()
    together = max(1, min(settings.batch_users, settings.scores // len(items)))
    recalls, parts = [], []
    total = len(held_out.cut)
    world = world if total >= world.size else ALONE  # too few to share: each process does them all
    for users in torch.split(torch.arange(total, device=held_out.cut.device)[world.share(total)], together):
        interests, scores = _scored(model, items, held_out, settings, users)
        top = scores.topk(min(settings.n, len(items)), dim=1).indices
        recalls.append(_hits(held_out, users, top, len(items)) / held_out.n_targets[users])
        parts.append(observe(interests, items, top))
    model.train(was_training)
    recall = world.joined(torch.cat(recalls).double(), total).mean()
    return {f"recall@{settings.n}": float(recall), **summarise_health(joined_parts(parts, world, total))}


def _scored(
    model: AbstractRetrievalModel, items: Tensor, held_out: HeldOut, settings: ValidationSettings, users: Tensor
) -> tuple[Interests, Float[Tensor, "B N"]]:
    start, cut = held_out.start[users], held_out.cut[users]
    interests = model.interests(gather_histories(held_out.items, held_out.times, start, cut, model.history))
    scores = max_scores(interests, items)
    if settings.filter_seen:
        owner, event = _events(start, cut)
        scores[owner, held_out.items[event].long()] = -torch.inf
    return interests, scores


def _hits(held_out: HeldOut, users: Tensor, top: Int[Tensor, "B n"], n_items: int) -> Int[Tensor, " B"]:
    keys = users[:, None] * n_items + top
    found = torch.searchsorted(held_out.target_keys, keys).clamp(max=len(held_out.target_keys) - 1)
    return (held_out.target_keys[found] == keys).sum(dim=1)


def max_scores(interests: Interests, items: Float[Tensor, "N D"]) -> Float[Tensor, "B N"]:
    """The serving score of every item: max over valid interests of the inner product."""
    best = items.new_full((len(interests.vectors), len(items)), -torch.inf)
    for k in range(interests.vectors.shape[1]):
        scores = interests.vectors[:, k] @ items.T
        best = torch.maximum(best, scores.masked_fill(~interests.valid[:, k, None], -torch.inf))
    return best


def _events(start: Tensor, cut: Tensor) -> tuple[Tensor, Tensor]:
    lengths = cut - start
    owner = torch.repeat_interleave(lengths)
    first = torch.cumsum(lengths, 0) - lengths
    return owner, torch.arange(len(owner), device=start.device) - first[owner] + start[owner]
