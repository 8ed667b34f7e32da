"""Recall of held-out users while training: exact, unsampled, over the whole catalog."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from retrieval.models.histories import gather_histories
from retrieval.models.interests import Interests
from retrieval.models.retrieval_model import AbstractRetrievalModel


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
def validate(model: AbstractRetrievalModel, held_out: HeldOut, settings: ValidationSettings) -> dict[str, float]:
    """recall@n (mean over users) and the mean pairwise cosine of the interests; the model is left in its mode."""
    was_training = model.training
    model.eval()
    items = model.all_items()
    together = max(1, min(settings.batch_users, settings.scores // len(items)))
    results = [
        _batch(model, items, held_out, settings, users)
        for users in torch.split(torch.arange(len(held_out.cut), device=held_out.cut.device), together)
    ]
    model.train(was_training)
    recall, cosine, pairs = (torch.cat(parts) for parts in zip(*results, strict=True))
    return {
        f"recall@{settings.n}": float(recall.double().mean()),
        "interest_cosine": float((cosine * pairs).sum() / pairs.sum().clamp(min=1)),
    }


def _batch(
    model: AbstractRetrievalModel, items: Tensor, held_out: HeldOut, settings: ValidationSettings, users: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    start, cut = held_out.start[users], held_out.cut[users]
    interests = model.interests(gather_histories(held_out.items, held_out.times, start, cut, model.history))
    scores = max_scores(interests, items)
    if settings.filter_seen:
        owner, event = _events(start, cut)
        scores[owner, held_out.items[event].long()] = -torch.inf
    top = scores.topk(min(settings.n, len(items)), dim=1).indices
    keys = users[:, None] * len(items) + top
    found = torch.searchsorted(held_out.target_keys, keys).clamp(max=len(held_out.target_keys) - 1)
    hits = (held_out.target_keys[found] == keys).sum(dim=1)
    return hits / held_out.n_targets[users], *pairwise_cosine(interests)


def max_scores(interests: Interests, items: Float[Tensor, "N D"]) -> Float[Tensor, "B N"]:
    """The serving score of every item: max over valid interests of the inner product."""
    best = items.new_full((len(interests.vectors), len(items)), -torch.inf)
    for k in range(interests.vectors.shape[1]):
        scores = interests.vectors[:, k] @ items.T
        best = torch.maximum(best, scores.masked_fill(~interests.valid[:, k, None], -torch.inf))
    return best


def pairwise_cosine(interests: Interests) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Mean cosine over the pairs of a user's valid interests, and how many pairs (0: the mean is 0)."""
    unit = torch.nn.functional.normalize(interests.vectors, dim=-1) * interests.valid[:, :, None]
    count = interests.valid.sum(dim=1).float()
    pairs = count * (count - 1)
    return (unit.sum(dim=1).square().sum(dim=-1) - count) / pairs.clamp(min=1), pairs


def _events(start: Tensor, cut: Tensor) -> tuple[Tensor, Tensor]:
    lengths = cut - start
    owner = torch.repeat_interleave(lengths)
    first = torch.cumsum(lengths, 0) - lengths
    return owner, torch.arange(len(owner), device=start.device) - first[owner] + start[owner]
