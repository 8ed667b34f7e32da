"""The trained re-scorer: item vectors of its own, that begin as recall's, and DIN or DIEN over them."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from retrieval.core.seeds import derive_seed
from retrieval.core.tables import Table
from retrieval.models.item_tower import ItemTower
from retrieval.models.rescoring.abstract import AbstractRescorer
from retrieval.models.rescoring.dien import DIEN
from retrieval.models.rescoring.din import DIN
from retrieval.models.rescoring.settings import RescorerBlocks

RESCORERS: Table[Callable[[int, RescorerBlocks], AbstractRescorer]] = Table("re-scorer", {"din": DIN, "dien": DIEN})


class RescoringModel(nn.Module):
    """f(u, i) = scale * (recall's score of i, standardised in the pool of u) + gain(u, i); scale is learned, from 1 on.

    `items` has a row an item of the catalog, of as many numbers as the vectors that recall searches.
    """

    def __init__(self, items: ItemTower, rescorer: AbstractRescorer) -> None:
        super().__init__()
        self.items, self.rescorer = items, rescorer
        self.scale = nn.Parameter(torch.ones(()))

    @property
    def per_item(self) -> frozenset[str]:
        """The names of what is learned for each item, a row each."""
        return frozenset(f"items.{name}" for name in self.items.per_item)

    def forward(
        self,
        history: Int[Tensor, "B L"],
        valid: Bool[Tensor, "B L"],
        rows: Int[Tensor, "B C"],
        present: Bool[Tensor, "B C"],
        recalled: Float[Tensor, "B C"],
    ) -> Float[Tensor, "B C"]:
        """The scores of C recalled items of B users; -inf where there is none.

        Args:
            history: item rows, oldest first and left-aligned; any row where not valid.
            valid: which of them there are.
            rows: the candidates; any row where not present.
            present: which of them there are.
            recalled: their standardised scores.
        """
        gains = self.rescorer(self.items(history), valid, self.items(rows), present, recalled)
        scores: Tensor = self.scale * recalled + gains
        return scores.masked_fill(~present, -torch.inf)

    def auxiliary(self, history: Int[Tensor, "B L"], valid: Bool[Tensor, "B L"], others: Int[Tensor, "B L"]) -> Float[Tensor, ""]:
        """The re-scorer's own loss on histories, 0 where it has none."""
        loss: Tensor = self.rescorer.auxiliary(self.items(history), valid, self.items(others))
        return loss


def build_rescorer(name: str, vectors: Float[Tensor, "N D"], blocks: RescorerBlocks, seed: int) -> RescoringModel:
    """A re-scorer whose item vectors are copies of recall's. Raises UsageError when there is no such re-scorer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "rescorer"))
        model = RescoringModel(ItemTower(*vectors.shape), RESCORERS[name](vectors.shape[1], blocks))
    with torch.no_grad():
        model.items.embedding.weight.copy_(vectors)
    return model
