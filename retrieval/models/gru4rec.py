"""GRU4Rec: a gated recurrent network over the history (Hidasi et al., ICLR 2016; Hidasi & Karatzoglou, CIKM 2018)."""

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from retrieval.models.histories import Histories
from retrieval.models.interests import Interests
from retrieval.models.recurrent import AbstractRecurrentEncoder, at_last, run_gru
from retrieval.models.settings import Gru4RecSettings


@dataclass(frozen=True)
class _Known:
    """A state in parts: the hidden state of every layer, and for the mean the sum and number of those read so far."""

    hidden: list[Float[Tensor, "B D"]]
    total: Float[Tensor, "B D"] | None = None
    count: Float[Tensor, "B 1"] | None = None


class Gru4Rec(AbstractRecurrentEncoder):
    """r, z = sigmoid(W x + U h + b); n = tanh(W x + b + r * (U h + b)); h' = (1 - z) * n + z * h. One interest.

    The interest is the state after the true last event, or the mean of the states after all of them. Item vectors
    are both input and output, so the hidden size is theirs ("constrained embedding" of the authors' code). Differs
    from the papers: the reset gate acts on U h and not on h, as in the authors' PyTorch code; the score is the inner
    product alone, without a bias of the item and without the output activation of the first paper.
    """

    def __init__(self, settings: Gru4RecSettings) -> None:
        super().__init__()
        self.settings = settings
        self.mean = settings.readout == "mean"
        self.state_size = settings.dimension * settings.layers + (settings.dimension + 1 if self.mean else 0)
        self.layers = nn.ModuleList(nn.GRU(settings.dimension, settings.dimension, batch_first=True) for _ in range(settings.layers))

    def forward(self, events: Float[Tensor, "B L D"], histories: Histories) -> Interests:
        steps = self.prefixes(events, histories).vectors.view(events.shape)
        vectors = at_last(steps, histories.lengths)[:, None]
        # It is serving that asks which events an interest comes from.
        routing = None if self.training else self._routing(events, histories)
        return Interests(vectors, vectors.new_ones(vectors.shape[:2], dtype=torch.bool), routing)

    def advance(
        self, events: Float[Tensor, "B L D"], histories: Histories, state: Float[Tensor, "B S"]
    ) -> tuple[Interests, Float[Tensor, "B S"]]:
        known, lengths = self._unpack(state), histories.lengths
        steps, after = events, []
        for layer, hidden in zip(self._grus, known.hidden, strict=True):
            states = run_gru(layer, steps, lengths, hidden)
            after.append(at_last(states, lengths))
            steps = functional.dropout(states, self.settings.hidden_dropout, self.training)
        if known.total is not None and known.count is not None:
            totals = known.total[:, None] + steps.cumsum(dim=1)
            counts = known.count[:, None] + torch.arange(1, steps.shape[1] + 1, device=steps.device)[:, None]
            after += [at_last(totals, lengths), known.count + lengths[:, None]]
            steps = totals / counts
        return Interests(steps.flatten(0, 1)[:, None], histories.valid.reshape(-1, 1)), torch.cat(after, dim=1)

    @property
    def _grus(self) -> list[nn.GRU]:
        return cast("list[nn.GRU]", list(self.layers))

    def _unpack(self, state: Float[Tensor, "B S"]) -> _Known:
        layers, dimension = self.settings.layers, self.settings.dimension
        hidden = list(torch.split(state[:, : layers * dimension], dimension, dim=1))
        return _Known(hidden, state[:, -dimension - 1 : -1], state[:, -1:]) if self.mean else _Known(hidden)

    @torch.no_grad()
    def _routing(self, events: Float[Tensor, "B L D"], histories: Histories) -> Float[Tensor, "B 1 L"]:
        """The share of each event in the interest.

        A state is a convex combination of what the events proposed: (1 - z_i) of event i when it comes, of which each
        later event j keeps z_j. The mean over the dimensions is told, of the last layer. What is missing to one is
        the share of the state from before the first event.
        """
        gates = self._update_gates(events, histories)
        shares, kept, reads = torch.zeros_like(gates), torch.zeros_like(gates[:, 0]), self._reads(histories)
        for position in reversed(range(gates.shape[1])):
            kept = kept + reads[:, position, None]
            shares[:, position] = (1.0 - gates[:, position]) * kept
            kept = kept * gates[:, position]
        return shares.mean(dim=2)[:, None]

    def _reads(self, histories: Histories) -> Float[Tensor, "B L"]:
        """How much the interest takes of the state after each position."""
        lengths = histories.lengths.clamp(min=1)[:, None]
        if self.mean:
            return histories.valid / lengths
        return (torch.arange(histories.valid.shape[1], device=lengths.device) == lengths - 1).to(torch.float32)

    def _update_gates(self, events: Float[Tensor, "B L D"], histories: Histories) -> Float[Tensor, "B L D"]:
        steps, lengths, dimension = events, histories.lengths, self.settings.dimension
        for layer in self._grus:
            inputs, steps = steps, run_gru(layer, steps, lengths, steps.new_zeros(len(steps), dimension))
        before = functional.pad(steps, (0, 0, 1, -1))
        of_inputs, of_states, of_inputs_bias, of_states_bias = (
            getattr(self.layers[-1], f"{name}_l0")[dimension : 2 * dimension] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        return torch.sigmoid(functional.linear(inputs, of_inputs, of_inputs_bias) + functional.linear(before, of_states, of_states_bias))
