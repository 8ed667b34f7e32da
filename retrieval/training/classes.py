"""The classes of a softmax over the whole catalog: all items, or with fields those that training reads."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from retrieval.losses.abstract import Competitors, Examples
from retrieval.losses.exclusions import NOTHING, KnownItems
from retrieval.models.retrieval_model import RetrievalModel


@dataclass(frozen=True)
class TrainedClasses:
    """The items whose ids training reads, as classes.

    To learn that an item which nobody could have met yet is never wanted would be to learn that what is like it is
    not: all others are served from their fields alone.
    """

    rows: Int[Tensor, " C"]
    places: Int[Tensor, " N"]
    """The class of each item, `NOTHING` where it is none."""

    @classmethod
    def of(cls, model: RetrievalModel) -> "TrainedClasses | None":
        """None where a model knows ids alone: what an id without an event has learned is served to nobody."""
        if model.items.fields is None:
            return None
        trained = model.items.fields.trained
        places = torch.where(trained, trained.cumsum(0) - 1, NOTHING)
        return cls(torch.nonzero(trained).flatten(), places)

    def compared(self, model: RetrievalModel, examples: Examples, known: KnownItems | None) -> tuple[Examples, Competitors]:
        """The examples, their positives as classes, and what they compete with."""
        if known is not None:
            known = replace(known, rows=torch.where(known.rows == NOTHING, NOTHING, self.places[known.rows]))
        return replace(examples, positive_rows=self.places[examples.positive_rows]), Competitors(model.item_vectors(self.rows), known=known)
