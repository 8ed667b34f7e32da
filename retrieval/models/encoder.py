"""The contract of every user encoder."""

import abc

from jaxtyping import Float
from torch import Tensor, nn

from retrieval.models.histories import Histories
from retrieval.models.interests import Interests


class AbstractUserEncoder(nn.Module, abc.ABC):
    """Histories -> Interests. The item vectors of the history are handed in, so that input and output share one table."""

    weighted: bool = False
    """Its interests come with log weights."""

    @abc.abstractmethod
    def forward(self, events: Float[Tensor, "B L D"], histories: Histories) -> Interests:
        """The interests after the last event of each history.

        Args:
            events: item vectors of the history, zero where invalid.
            histories: the window; at least one event a row is valid (others give vectors without meaning).
        """

    @abc.abstractmethod
    def prefixes(self, events: Float[Tensor, "B L D"], histories: Histories) -> Interests:
        """The interests after *every* position of the window, [B*L,K,D], in one pass.

        Row b*L + l equals `forward` on the first l+1 events of window b (a contract test holds every encoder to
        it), so one pass trains L positions for little more than the price of one. Routing is told where it has a
        gradient, which is where a penalty on it can do something.
        """
