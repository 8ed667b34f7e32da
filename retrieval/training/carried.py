"""What an encoder knows of the session in each slot, from one step to the next."""

import torch
from jaxtyping import Float
from torch import Tensor

from retrieval.models.histories import Histories
from retrieval.models.interests import Interests
from retrieval.models.retrieval_model import RetrievalModel
from retrieval.training.distributed import ALONE, World
from retrieval.training.examples import Slots


class CarriedStates:
    """The states of all slots; part of a checkpoint, because they come from weights that have changed since."""

    def __init__(self) -> None:
        self._states: Float[Tensor, "slots S"] | None = None

    def advance(self, model: RetrievalModel, slots: Slots, histories: Histories) -> Interests:
        """The interests after every position of the windows, [B*L,K,D]; the states then are those after the windows.

        No gradient goes back through a state that was carried.
        """
        states = self._of(model, slots)
        before = states[slots.number].masked_fill(slots.fresh[:, None], 0.0)
        interests, after = model.advance(histories, before)
        states[slots.number[slots.last]] = after.detach()[slots.last]
        return interests

    def tensors(self, world: World = ALONE) -> dict[str, Tensor]:
        """As a checkpoint keeps them, those of every process; none where nothing is carried."""
        if self._states is None:
            return {}
        return {"states": world.joined(self._states[world.share(len(self._states))], len(self._states))}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take the states of a checkpoint."""
        self._states = tensors.get("states")

    def _of(self, model: RetrievalModel, slots: Slots) -> Float[Tensor, "slots S"]:
        device = slots.number.device
        if self._states is None:
            self._states = torch.zeros(slots.count, model.state_size, device=device)
        self._states = self._states.to(device)
        return self._states
