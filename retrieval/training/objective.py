"""From windows to a scalar: model, readout, negatives and loss meet here."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from retrieval.core.errors import UsageError
from retrieval.core.seeds import derive_seed
from retrieval.losses.abstract import Competitors, Examples
from retrieval.losses.exclusions import NOTHING, KnownItems
from retrieval.losses.readouts import Queries
from retrieval.losses.regularisation import orthogonality, routing_variance
from retrieval.losses.settings import LossSettings
from retrieval.losses.softmax import LOSSES
from retrieval.models.histories import Histories, gather_histories
from retrieval.models.interests import Interests
from retrieval.models.retrieval_model import RetrievalModel
from retrieval.sampling.negatives import SAMPLERS, NegativeSampler
from retrieval.training.carried import CarriedStates
from retrieval.training.examples import TrainingEvents, Windows


class Objective:
    """loss(windows, step), with the negatives of a step drawn from (seed, step)."""

    def __init__(self, model: RetrievalModel, events: TrainingEvents, settings: LossSettings, compute: torch.dtype, seed: int) -> None:
        self.model, self.events, self.settings, self.compute, self.seed = model, events, settings, compute, seed
        self.carried = CarriedStates()
        self.loss = LOSSES[settings.name](settings)
        n_items = len(model.items.all_items())
        self.sampler = NegativeSampler(SAMPLERS[settings.sampler](events.counts(n_items), settings.alpha))

    def __call__(self, windows: Windows, step: int, *, least_history: int | None) -> Float[Tensor, ""]:
        """The mean loss of the examples of some windows.

        Every position with `least_history` events is an example; None makes one of each window, its end.
        """
        longest = int((windows.end - windows.start).max())  # padding that no window of the batch needs is not made
        windows = windows.to(self.events.items.device)
        histories = gather_histories(self.events.items, self.events.times, windows.start, windows.end, longest)
        if least_history is not None:
            interests, owner, following = self._positions(windows, histories, least_history)
        else:
            interests, following = self.model.interests(histories), windows.end
            owner = torch.arange(len(following), device=following.device)
        targets = self._targets(following, windows.last[owner], windows.horizon, step)
        rows = self.events.items[targets].to(torch.int64)
        examples = Examples(self._queries(interests), rows, self.model.item_vectors(rows), self._weights(targets))
        loss = self.loss(examples, self._competitors(rows, histories, owner, step), self.compute)
        return loss + self._penalty(interests, examples.weights, following - windows.start[owner])

    def _positions(
        self, windows: Windows, histories: Histories, least_history: int
    ) -> tuple[Interests, Int[Tensor, " P"], Int[Tensor, " P"]]:
        """Interests after each position to train, the window it lies in, and the event that follows it."""
        interests, length = self._prefixes(windows, histories), histories.items.shape[1]
        seen = torch.arange(1, length + 1, device=histories.valid.device)
        trained = histories.valid & ((seen >= least_history) | (histories.lengths < least_history)[:, None])
        chosen = torch.nonzero(trained.flatten()).flatten()
        owner = chosen // length
        routing = interests.routing[chosen] if self.settings.penalties.routing and interests.routing is not None else None
        kept = Interests(interests.vectors[chosen], interests.valid[chosen], routing)
        return kept, owner, windows.start[owner] + chosen % length + 1

    def _targets(self, following: Int[Tensor, " P"], last: Int[Tensor, " P"], horizon: int, step: int) -> Int[Tensor, " P"]:
        """One of the next `horizon` events of each position, or of as many as there are."""
        if horizon == 1:
            return following
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "targets", step))
        draw = torch.rand(len(following), generator=generator, dtype=torch.float64).to(following.device)
        return following + (draw * (last - following + 1).clamp(max=horizon)).long()

    def _prefixes(self, windows: Windows, histories: Histories) -> Interests:
        if windows.slots is None:
            return self.model.prefix_interests(histories)
        return self.carried.advance(self.model, windows.slots, histories)

    def _queries(self, interests: Interests) -> Queries:
        return Queries(interests.vectors / self.model.settings.temperature, interests.valid)

    def _penalty(self, interests: Interests, weights: Float[Tensor, " P"], seen: Int[Tensor, " P"]) -> Float[Tensor, ""]:
        chosen = self.settings.penalties
        total = weights.new_zeros(())
        if chosen.orthogonality:
            total = total + chosen.orthogonality * orthogonality(interests.vectors, interests.valid, weights)
        if chosen.routing:
            if interests.routing is None or not interests.routing.requires_grad:
                raise UsageError(
                    "train.loss.penalties.routing has nothing to act on: this encoder's routing has no gradient",
                    expected="an attention encoder such as comirec-sa",
                    remedy="set it to 0",
                )
            valid = torch.arange(interests.routing.shape[2], device=seen.device) < seen[:, None]
            total = total + chosen.routing * routing_variance(interests.routing, valid, weights)
        return total

    def _weights(self, positions: Int[Tensor, " P"]) -> Float[Tensor, " P"]:
        if self.events.weights is None:
            return torch.full((len(positions),), 1.0 / len(positions), device=positions.device)
        weights = self.events.weights[positions]
        return weights / weights.sum().clamp(min=1e-12)

    def _competitors(self, positive_rows: Int[Tensor, " P"], histories: Histories, owner: Int[Tensor, " P"], step: int) -> Competitors:
        if self.settings.name == "full-softmax":
            return Competitors(self.model.all_items())
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "negatives", step))
        negatives = self.sampler.draw(self.settings.negatives, generator)
        seen = KnownItems(histories.items.masked_fill(~histories.valid, NOTHING), owner) if self.settings.mask_history else None
        log_q = self.sampler.log_q(positive_rows)
        return Competitors(self.model.item_vectors(negatives.rows), negatives.rows, negatives.log_q, log_q, seen)
