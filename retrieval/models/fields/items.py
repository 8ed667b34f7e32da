"""What fields make of an item: its vector, with or without what its id has learned."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from retrieval.data.fields.settings import ITEM_ID
from retrieval.models.fields.inputs import FieldInputs
from retrieval.models.fields.settings import FieldsSettings
from retrieval.models.fields.tower import GatedSum
from retrieval.models.fields.vectors import FieldVectors


class ItemFields(nn.Module):
    """Id and fields -> the item's vector, the id being a field among the others.

    The id of an item that no step of training could read is left out, for it is as it was drawn; in training so are those of a share
    of a step's items (DropoutNet: Volkovs et al., NeurIPS 2017, there of the preferences of both sides), so that what the
    fields make is a good vector by itself. Differs from the paper: ids that stay are not scaled up.
    """

    trained: Tensor

    def __init__(self, inputs: FieldInputs, dimension: int, settings: FieldsSettings) -> None:
        super().__init__()
        self.id_dropout = settings.id_dropout
        self.vectors = FieldVectors(inputs.items, dimension)
        self.sum = GatedSum(1 + len(self.vectors), dimension, settings)
        self.register_buffer("trained", torch.from_numpy(inputs.trained.copy()))

    @property
    def names(self) -> list[str]:
        """Of the fields, in the order of `parts`."""
        return [ITEM_ID, *self.vectors.names]

    def forward(self, ids: Float[Tensor, "R D"], rows: Int[Tensor, " R"]) -> Float[Tensor, "R D"]:
        found: Tensor = self.sum(self.parts(ids, rows))
        return found

    def parts(self, ids: Float[Tensor, "R D"], rows: Int[Tensor, " R"]) -> Float[Tensor, "R F D"]:
        """The vectors of the id, zero where it is left out, and of the fields."""
        return torch.cat([(ids * self._known(rows)[:, None])[:, None], self.vectors(rows)], dim=1)

    def _known(self, rows: Int[Tensor, " R"]) -> Bool[Tensor, " R"]:
        known = self.trained[rows]
        if not (self.training and self.id_dropout):
            return known
        return known & (torch.rand(len(rows), device=rows.device) >= self.id_dropout)
