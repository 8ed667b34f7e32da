"""The best items of held-out users: by processes that hold all items each, or by those that hold a share of them."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from retrieval.models.interests import Interests
from retrieval.models.retrieval_model import AbstractRetrievalModel, RetrievalModel
from retrieval.training.distributed import ALONE, World
from retrieval.training.health import winning
from retrieval.training.held_out import HeldOut, ValidationSettings
from retrieval.training.sharding import RowExchange


class Best(NamedTuple):
    """The best items of B users, best first: their rows, and the interest that scores each of them best."""

    rows: Int[Tensor, "B n"]
    winners: Int[Tensor, "B n"]


Ranked = tuple[Tensor, Interests, Best]
"""Some users, their interests and their best items."""


def ranked_by_each(
    model: AbstractRetrievalModel, items: Float[Tensor, "N S"], held_out: HeldOut, settings: ValidationSettings, world: World
) -> Iterator[Ranked]:
    """The users of this process, ranked by itself; too few to share, each process ranks them all."""
    for users in _portions(held_out, settings, len(items), world):
        interests = model.interests(held_out.histories(users, model.history))
        scores = _scores(interests, items, held_out, settings, users)
        top = scores.topk(min(settings.n, len(items)), dim=1).indices
        yield users, interests, Best(top, winning(interests, items[top]))


def ranked_by_all(model: RetrievalModel, held_out: HeldOut, settings: ValidationSettings, world: World) -> Iterator[Ranked]:
    """The users of this process, ranked by all: each ranks the items that it holds, and the lists are merged.

    Users are encoded in the portions of `ranked_by_each`, so that their interests have the same bits; the scores may
    differ from its in the last one, as they do with the size of any matrix product.
    """
    portions = [_portions(held_out, settings, model.items.n_items, each) for each in world.members]
    encoded = list(_encoded(model, held_out, portions, world))
    every = _joined(encoded, world.among(len(held_out.cut)), len(held_out.cut))
    search = _SharedSearch(model, held_out, settings, world)
    found = [search.best(users, every) for users in _portions(held_out, settings, search.most_items, ALONE)]
    best = Best(torch.cat([each.rows for each in found]), torch.cat([each.winners for each in found]))
    for users, interests in zip(portions[world.rank], encoded, strict=True):
        yield users, interests, Best(best.rows[users], best.winners[users])


def _portions(held_out: HeldOut, settings: ValidationSettings, n_items: int, world: World) -> list[Int[Tensor, " b"]]:
    """The users that a process does, as many at a time as may be scored against so many items."""
    total = len(held_out.cut)
    every = torch.arange(total, device=held_out.cut.device)
    together = max(1, min(settings.batch_users, settings.scores // max(1, n_items)))
    return list(torch.split(every[world.among(total).share(total)], together))


def _encoded(model: RetrievalModel, held_out: HeldOut, portions: list[list[Tensor]], world: World) -> Iterator[Interests]:
    """The interests of this process's portions; all processes go through theirs together."""
    exchange = RowExchange(model.items, world)
    for turn in range(max(map(len, portions))):
        users = [each[turn] if turn < len(each) else each[0][:0] for each in portions]
        with exchange.readable([held_out.histories(each, model.history).items for each in users]):
            if len(users[world.rank]):
                found = model.interests(held_out.histories(users[world.rank], model.history))
                yield Interests(found.vectors, found.valid)


def _joined(parts: list[Interests], sharing: World, total: int) -> Interests:
    """The interests of all users."""
    vectors, valid = torch.cat([part.vectors for part in parts]), torch.cat([part.valid for part in parts])
    return Interests(sharing.joined(vectors, total), sharing.joined(valid.to(torch.uint8), total).bool())


class _SharedSearch:
    """The best items of some users, of which each process finds those that it holds."""

    def __init__(self, model: RetrievalModel, held_out: HeldOut, settings: ValidationSettings, world: World) -> None:
        self.held_out, self.settings, self.world = held_out, settings, world
        self.items, self.first, self.n_items = model.held_items(), model.items.held.start, model.items.n_items
        held = [share.stop - share.start for share in world.shares(self.n_items)]
        self.most_items, self.lengths = max(held), [min(settings.n, count) for count in held]

    def best(self, users: Int[Tensor, " B"], every: Interests) -> Best:
        """The best of all; `every` are the interests of all users, and all processes ask for the same users."""
        own = self._own(users, Interests(every.vectors[users], every.valid[users]))
        each = self.world.gathered(functional.pad(own, (0, max(self.lengths) - own.shape[2])))
        lists = torch.cat([values[:, :, :length] for values, length in zip(each, self.lengths, strict=True)], dim=2)
        chosen = lists[0].topk(min(self.settings.n, self.n_items), dim=1).indices
        return Best(*lists[1:].gather(2, chosen.expand(2, -1, -1)).long())

    def _own(self, users: Int[Tensor, " B"], interests: Interests) -> Float[Tensor, "3 B n"]:
        """Scores, rows and winners of the best that lie here; as float64 all three are exact and travel together."""
        scores = _scores(interests, self.items, self.held_out, self.settings, users, self.first)
        top = scores.topk(self.lengths[self.world.rank], dim=1)
        winners = winning(interests, self.items[top.indices])
        return torch.stack([top.values.double(), (top.indices + self.first).double(), winners.double()])


def _scores(
    interests: Interests,
    items: Float[Tensor, "M S"],
    held_out: HeldOut,
    settings: ValidationSettings,
    users: Int[Tensor, " B"],
    first: int = 0,
) -> Float[Tensor, "B M"]:
    """The scores of the items from row `first` on, lowest for those that nobody gets, and for seen ones if they are to be left out."""
    scores = max_scores(interests, items)
    if settings.filter_seen:
        owner, item = held_out.seen(users)
        here = (item >= first) & (item < first + len(items))
        scores[owner[here], item[here] - first] = -torch.inf
    if held_out.blocked is not None:
        scores[:, held_out.blocked[first : first + len(items)]] = -torch.inf
    return scores


@torch.no_grad()
def max_scores(interests: Interests, items: Float[Tensor, "M S"]) -> Float[Tensor, "B M"]:
    """The serving score of every item: max over valid interests of the inner product."""
    best = items.new_full((len(interests.vectors), len(items)), -torch.inf)
    for k in range(interests.vectors.shape[1]):
        # In place: two of these are held at a time, and no more.
        scores = (interests.vectors[:, k] @ items.T).masked_fill_(~interests.valid[:, k, None], -torch.inf)
        torch.maximum(best, scores, out=best)
    return best
