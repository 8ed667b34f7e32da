"""The item side: rows of the catalog -> vectors."""

from jaxtyping import Float, Int
from torch import Tensor, nn


class ItemTower(nn.Module):
    """One embedding a catalog row, for histories and targets alike."""

    def __init__(self, n_items: int, dimension: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_items, dimension)
        nn.init.normal_(self.embedding.weight, std=dimension**-0.5)

    def forward(self, rows: Int[Tensor, "*S"]) -> Float[Tensor, "*S D"]:
        """The vectors of some catalog rows."""
        vectors: Tensor = self.embedding(rows)
        return vectors

    def all_items(self) -> Float[Tensor, "N D"]:
        """The vectors of the whole catalog, in row order."""
        return self.embedding.weight
