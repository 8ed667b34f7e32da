"""What fields make of an event: something that is added to the vector of its item."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from retrieval.data.fields.coding import FieldColumn
from retrieval.models.fields.inputs import FieldInputs
from retrieval.models.fields.settings import FieldsSettings
from retrieval.models.fields.tower import GatedSum
from retrieval.models.fields.vectors import FieldVectors
from retrieval.models.histories import Histories


class EventFields(nn.Module):
    """The gated fields of every event of a history, such as its device, its rating, the time since the one before.

    Events are many and their fields are codes, so that few combinations of them occur: each is made once a step.
    """

    combination: Tensor

    def __init__(self, inputs: FieldInputs, dimension: int, settings: FieldsSettings) -> None:
        super().__init__()
        first, combination = _combinations(inputs.events)
        self.vectors = FieldVectors([_of_rows(column, first) for column in inputs.events], dimension)
        self.sum = GatedSum(len(self.vectors), dimension, settings)
        self.count = len(first)
        self.register_buffer("combination", torch.from_numpy(combination), persistent=False)

    def forward(self, histories: Histories) -> Float[Tensor, "B L D"]:
        """What is added to the item vectors.

        Raises:
            LookupError: the histories do not say which events they hold.
        """
        if histories.context is None:
            raise LookupError("a model that reads fields of events needs histories with their context")
        met = self.combination[histories.context.places].long()
        if self.count <= met.numel():
            return functional.embedding(met, self.sum(self.vectors(torch.arange(self.count, device=met.device))))
        distinct, places = torch.unique(met, return_inverse=True)
        return functional.embedding(places, self.sum(self.vectors(distinct)))


def _combinations(columns: Sequence[FieldColumn]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """An event of every combination of codes, and the combination of every event, int32 [E]."""
    first, found = np.zeros(0, dtype=np.int64), np.zeros(1, dtype=np.int64)
    for column in columns:
        assert column.codes is not None  # noqa: S101 - fields of events are codes
        # Renumbered after every field, so that no product of their sizes can overflow.
        _, first, found = np.unique(found * column.coding.rows + column.codes.astype(np.int64), return_index=True, return_inverse=True)
    return first, found.astype(np.int32)


def _of_rows(column: FieldColumn, rows: NDArray[np.int64]) -> FieldColumn:
    assert column.codes is not None  # noqa: S101 - fields of events are codes
    return FieldColumn(column.coding, np.asarray(column.codes)[rows])
