"""What fields make of an event: something that is added to the vector of its item."""

from jaxtyping import Float
from torch import Tensor, nn

from retrieval.models.fields.inputs import FieldInputs
from retrieval.models.fields.settings import FieldsSettings
from retrieval.models.fields.tower import GatedSum
from retrieval.models.fields.vectors import FieldVectors
from retrieval.models.histories import Histories


class EventFields(nn.Module):
    """The gated fields of every event of a history, such as its device, its rating, the time since the one before."""

    def __init__(self, inputs: FieldInputs, dimension: int, settings: FieldsSettings) -> None:
        super().__init__()
        self.vectors = FieldVectors(inputs.events, dimension)
        self.sum = GatedSum(len(self.vectors), dimension, settings)

    def forward(self, histories: Histories) -> Float[Tensor, "B L D"]:
        """What is added to the item vectors.

        Raises:
            LookupError: the histories do not say which events they hold.
        """
        if histories.context is None:
            raise LookupError("a model that reads fields of events needs histories with their context")
        places = histories.context.places
        found: Tensor = self.sum(self.vectors(places.flatten()))
        return found.view(*places.shape, -1)
