"""DIEN: Deep Interest Evolution Network for Click-Through Rate Prediction (Zhou et al., AAAI 2019)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from retrieval.models.recurrent import run_gru
from retrieval.models.rescoring.abstract import AbstractRescorer, GainLayers
from retrieval.models.rescoring.settings import RescorerBlocks


class AUGRU(nn.Module):
    """A GRU whose update gate is scaled by attention: h' = (1 - a u) h + a u h~ (section "Interest Evolving Layer", equations 15, 16).

    An event that the candidate does not attend to leaves the state as it is. (The authors' code keeps the state by 1 - (1 - a) u, so
    that such an event acts as in a plain GRU; here it is as in the paper.)
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.of_input, self.of_state = nn.Linear(dimension, 3 * dimension), nn.Linear(dimension, 3 * dimension)

    def forward(
        self, inputs: Float[Tensor, "B L D"], valid: Bool[Tensor, "B L"], attention: Float[Tensor, "B C L"]
    ) -> Float[Tensor, "B C D"]:
        """The last states, one a candidate: what of an input does not depend on the candidate is computed once."""
        parts, weights = self.of_input(inputs), attention * valid[:, None, :]
        state = inputs.new_zeros(*attention.shape[:2], inputs.shape[2])
        for place in range(int(valid.sum(dim=1).max()) if valid.numel() else 0):
            state = self.step(parts[:, None, place], state, weights[:, :, place, None])
        return state

    def step(self, part: Float[Tensor, "B 1 G"], state: Float[Tensor, "B C D"], weight: Float[Tensor, "B C 1"]) -> Float[Tensor, "B C D"]:
        """One event, given by its part in the gates (update, reset, candidate state)."""
        update_in, reset_in, new_in = part.chunk(3, dim=-1)
        update_state, reset_state, new_state = self.of_state(state).chunk(3, dim=-1)
        update = weight * torch.sigmoid(update_in + update_state)
        new = torch.tanh(new_in + torch.sigmoid(reset_in + reset_state) * new_state)
        return torch.lerp(state, new, update)


class DIEN(AbstractRescorer):
    """A GRU reads the history into interest states; AUGRU reads those states as the candidate attends to them.

    Attention (equation 14) is softmax over the events of h_l W e. Differs from the paper as DIN here does.
    """

    learns_histories = True

    def __init__(self, dimension: int, blocks: RescorerBlocks) -> None:
        super().__init__()
        self.extract = nn.GRU(dimension, dimension, batch_first=True)
        self.attend = nn.Linear(dimension, dimension, bias=False)
        self.evolve = AUGRU(dimension)
        self.layers = GainLayers(2 * dimension + 1, blocks.hidden)

    def read(
        self,
        events: Float[Tensor, "B L D"],
        valid: Bool[Tensor, "B L"],
        targets: Float[Tensor, "B C D"],
        present: Bool[Tensor, "B C"],  # noqa: ARG002 (the layers leave out what is absent)
    ) -> Float[Tensor, "B C D"]:
        states = self.states(events, valid)
        read: Tensor = self.evolve(states, valid, self.attention(states, valid, targets))
        return read

    def states(self, events: Float[Tensor, "B L D"], valid: Bool[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """The interest after every event; zero behind the history's end."""
        read = run_gru(self.extract, events * valid[:, :, None], valid.sum(dim=1), events.new_zeros(len(events), events.shape[2]))
        return read * valid[:, :, None]

    def attention(
        self, states: Float[Tensor, "B L D"], valid: Bool[Tensor, "B L"], targets: Float[Tensor, "B C D"]
    ) -> Float[Tensor, "B C L"]:
        """How much a candidate attends to each interest state; 0 in all for a user without events."""
        logits = (targets @ self.attend(states).transpose(1, 2)).masked_fill(~valid[:, None, :], -1e9)
        return torch.softmax(logits, dim=-1) * valid[:, None, :]

    def auxiliary(self, events: Float[Tensor, "B L D"], valid: Bool[Tensor, "B L"], others: Float[Tensor, "B L D"]) -> Float[Tensor, ""]:
        """-mean over steps of log s(h_l . e_{l+1}) + log(1 - s(h_l . other_{l+1})), s the sigmoid (equation 6)."""
        states, steps = self.states(events, valid)[:, :-1], valid[:, 1:]
        scores = [(states * each[:, 1:]).sum(dim=-1) for each in (events, others)]
        losses = functional.softplus(-scores[0]) + functional.softplus(scores[1])
        return (losses * steps).sum() / steps.sum().clamp(min=1)
