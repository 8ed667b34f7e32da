"""From windows to a scalar: model, readout, negatives and loss meet here."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

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
from retrieval.losses.table import LOSSES
from retrieval.models.histories import Histories, Owners, gather_histories
from retrieval.models.interests import Interests
from retrieval.models.retrieval_model import RetrievalModel
from retrieval.sampling.negatives import SAMPLERS, Negatives, NegativeSampler, popularity
from retrieval.sampling.sources import SOURCES, AbstractSource, Parts
from retrieval.training.carried import CarriedStates
from retrieval.training.classes import TrainedClasses
from retrieval.training.distributed import ALONE, World
from retrieval.training.examples import AbstractExamples, TrainingEvents, Windows
from retrieval.training.sharding import RowExchange


class _Positions(NamedTuple):
    """The positions of windows that are trained."""

    chosen: Int[Tensor, " P"]
    """Which of the B*L of the batch."""
    owner: Int[Tensor, " P"]
    """The window each lies in."""
    following: Int[Tensor, " P"]
    """The first event that may be its target."""


class _Plan(NamedTuple):
    """The positives, their weights, and what they compete with: None is the whole catalog."""

    owner: Int[Tensor, " P"]
    """The window each lies in, in order."""
    rows: Int[Tensor, " P"]
    weights: Float[Tensor, " P"]
    negatives: Negatives | None

    def of(self, windows: Int[Tensor, " b"]) -> "_Plan":
        """The examples of windows that follow one another, against the same competitors."""
        first, past = torch.searchsorted(self.owner, torch.stack([windows[0], windows[-1] + 1])).tolist()
        examples, negatives = slice(first, past), self.negatives
        if negatives is not None and negatives.positive_log_q is not None:
            negatives = negatives._replace(positive_log_q=negatives.positive_log_q[examples])
        return _Plan(self.owner[examples], self.rows[examples], self.weights[examples], negatives)


class Objective:
    """loss(windows, step), with the negatives of a step drawn from (seed, step).

    `examples` is where a queue finds the positives of earlier steps.
    """

    def __init__(
        self,
        model: RetrievalModel,
        events: TrainingEvents,
        settings: LossSettings,
        compute: torch.dtype,
        seed: int,
        examples: AbstractExamples | None = None,
        world: World = ALONE,
    ) -> None:
        self.model, self.events, self.settings, self.compute, self.seed = model, events, settings, compute, seed
        self.world, self.exchange = world, RowExchange(model.items, world)
        self.carried = CarriedStates()
        self.loss = LOSSES[settings.name](settings)
        self.n_items = model.items.n_items
        self.drawable = self.n_items if model.items.fields is None else int(model.items.fields.trained.sum())
        self.source, self.classes = self._source(examples), TrainedClasses.of(model)
        self.starts = events.start.to(events.items.device) if model.reads_context else None

    def __call__(self, windows: Windows, step: int, *, least_history: int | None) -> Float[Tensor, ""]:
        """The mean loss of the examples of some windows.

        Every position with `least_history` events is an example; None makes one of each window, its end.
        """
        (loss,) = self.parts(windows, step, least_history=least_history, count=1)
        return loss

    def parts(self, windows: Windows, step: int, *, least_history: int | None, count: int) -> Iterator[Float[Tensor, ""]]:
        """The same loss as up to `count` summands, each of a part of the windows and with a graph of its own.

        Targets, weights and negatives are those of all windows, so that the gradients add up to those of the whole;
        with several processes, those of all of them do. States that are carried do not mind where a cut goes: of a slot's
        windows only the first goes on from the slot, only the last leaves its state there, and what lies between is fresh.
        """
        windows = windows.to(self.events.items.device)
        whole = self._planned(windows, step, least_history)
        with self.exchange.readable(self._read_by_each(windows, whole)):
            for numbers in windows.own(self.world).chunk(count):
                if len(numbers):
                    yield self._part(windows.some(numbers), whole.of(numbers), least_history)

    def _read_by_each(self, windows: Windows, plan: _Plan) -> list[Int[Tensor, " r"]]:
        """The rows of the item table that each process reads in a step, some of them more than once; nothing where each has all."""
        if not self.model.items.sharded:
            return []
        return [self._read(windows, plan, windows.own(each)) for each in self.world.members]

    def _read(self, windows: Windows, plan: _Plan, numbers: Int[Tensor, " b"]) -> Int[Tensor, " r"]:
        """The rows that some of the windows are read and trained with."""
        read = windows.some(numbers)
        histories = gather_histories(self.events.items, self.events.times, read.start, read.end, read.longest)
        negatives = [] if plan.negatives is None else [plan.negatives.rows]
        return torch.cat([histories.items.flatten(), plan.of(numbers).rows, *negatives])

    def _planned(self, windows: Windows, step: int, least_history: int | None) -> _Plan:
        """Everything of a step that takes no encoder."""
        positions = _positions(windows, windows.longest, least_history, self.events)
        targets = self._targets(windows, positions, step)
        rows = self.events.targets(targets)
        alone = self.settings.whole_catalog or len(rows) == 0
        return _Plan(positions.owner, rows, self._weights(targets), None if alone else self.source(rows, step))

    def _part(self, windows: Windows, plan: _Plan, least_history: int | None) -> Float[Tensor, ""]:
        longest = windows.longest  # padding that no window of the part needs is not made
        positions = _positions(windows, longest, least_history, self.events)
        histories = self._histories(windows, longest)
        with self.model.items.once([histories.items, plan.rows, *self._competing(plan)]):
            interests = self.model.interests(histories) if least_history is None else self._at(windows, histories, positions)
            if len(plan.rows) == 0:  # no event of these windows comes late enough to be a target
                return interests.vectors.sum() * 0.0
            seen = positions.chosen % longest + 1
            known = self._known(histories, positions.owner, seen)
            loss = self.loss(*self._compared(plan, interests, known), self.compute)
        return loss + self._penalty(interests, plan.weights, seen)

    def _histories(self, windows: Windows, longest: int) -> Histories:
        owners = None if self.starts is None else self._owners(self.starts, windows)
        return gather_histories(self.events.items, self.events.times, windows.start, windows.end, longest, owners)

    def _owners(self, starts: Int[Tensor, " U"], windows: Windows) -> Owners:
        # A user without events begins where the next one does, who is the last to begin there.
        users = torch.searchsorted(starts, windows.start, right=True) - 1
        return Owners(users, starts[users])

    def _compared(self, plan: _Plan, interests: Interests, known: KnownItems | None) -> tuple[Examples, Competitors]:
        """The examples, and what they compete with."""
        examples = Examples(self._queries(interests), plan.rows, self.model.item_vectors(plan.rows), plan.weights)
        if plan.negatives is None and self.classes is not None:
            return self.classes.compared(self.model, examples, known)
        return examples, self._competitors(plan.negatives, known)

    def _competing(self, plan: _Plan) -> list[Int[Tensor, " M"]]:
        """The rows that the positives compete with, unless they are all."""
        if plan.negatives is not None:
            return [plan.negatives.rows]
        return [] if self.classes is None else [self.classes.rows]

    def _targets(self, windows: Windows, positions: _Positions, step: int) -> Int[Tensor, " P"]:
        """One of the next `horizon` events of each position, or of as many as there are."""
        following, last = positions.following, windows.last[positions.owner]
        if windows.horizon == 1:
            return following
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "targets", step))
        draw = torch.rand(len(following), generator=generator, dtype=torch.float64).to(following.device)
        return following + (draw * (last - following + 1).clamp(max=windows.horizon)).long()

    def _at(self, windows: Windows, histories: Histories, positions: _Positions) -> Interests:
        """Interests after each position to train."""
        interests, chosen = self._prefixes(windows, histories), positions.chosen
        routing = interests.routing[chosen] if self.settings.penalties.routing and interests.routing is not None else None
        return Interests(interests.vectors[chosen], interests.valid[chosen], routing)

    def _prefixes(self, windows: Windows, histories: Histories) -> Interests:
        if windows.slots is None:
            return self.model.prefix_interests(histories)
        return self.carried.advance(self.model, windows.slots, histories)

    def _queries(self, interests: Interests) -> Queries:
        return Queries(interests.vectors / self.model.temperature(), interests.valid)

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
            return torch.full((len(positions),), 1.0 / max(1, len(positions)), device=positions.device)
        weights = self.events.weights[positions]
        return weights / weights.sum().clamp(min=1e-12)

    def _known(self, histories: Histories, owner: Int[Tensor, " P"], seen: Int[Tensor, " P"]) -> KnownItems | None:
        if self.settings.leave_out == "nothing":
            return None
        return KnownItems(histories.items.masked_fill(~histories.valid, NOTHING), owner, seen, self.settings.leave_out)

    def _competitors(self, negatives: Negatives | None, known: KnownItems | None) -> Competitors:
        if negatives is None:
            return Competitors(self.model.all_items(), known=known)
        return Competitors(
            self.model.item_vectors(negatives.rows),
            rows=negatives.rows,
            log_q=negatives.log_q,
            positive_log_q=negatives.positive_log_q,
            known=known,
            counts=negatives.counts,
            n_items=self.drawable,
        )

    def _source(self, examples: AbstractExamples | None) -> AbstractSource:
        settings, counts = self.settings, self.events.counts(self.n_items)
        drawn = NegativeSampler(self._drawable(SAMPLERS[settings.sampler](counts, settings.alpha)))
        earlier = None if examples is None else self._earlier(examples)
        # A positive is an event: popularity to the power one.
        batch = drawn if settings.source == "drawn" else NegativeSampler(popularity(counts, 1.0))
        return SOURCES[settings.source](Parts(batch, drawn, settings.negatives, self.seed, earlier, settings.queue_batches))

    def _drawable(self, probabilities: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
        """With fields, nothing whose id training does not read: as a negative it would teach that what is like it is never wanted."""
        if self.model.items.fields is None:
            return probabilities
        left = torch.where(self.model.items.fields.trained, probabilities, 0.0)
        return left / left.sum()

    def _earlier(self, examples: AbstractExamples) -> Callable[[int], Int[Tensor, " P"]]:
        """The positives of a step, made anew from its number and kept while they are in the queue."""

        def rows(step: int) -> Int[Tensor, " P"]:
            windows = examples.batch(step).to(self.events.items.device)
            positions = _positions(windows, windows.longest, examples.least_history, self.events)
            return self.events.targets(self._targets(windows, positions, step))

        return lru_cache(maxsize=self.settings.queue_batches)(rows)


def _positions(windows: Windows, longest: int, least_history: int | None, events: TrainingEvents) -> _Positions:
    """Which positions have a target and enough history, or all of a window that has none such; without prefixes, the ends."""
    lengths = windows.end - windows.start
    if least_history is None:
        every = torch.arange(len(lengths), device=lengths.device)
        return _Positions(every * longest + lengths - 1, every, windows.end)
    seen = torch.arange(1, longest + 1, device=lengths.device)
    trained = (seen <= lengths[:, None]) & ((seen >= least_history) | (lengths < least_history)[:, None])
    following = windows.start[:, None] + seen
    if events.later is not None:
        following = events.later[(following - 1).clamp(max=len(events.later) - 1)]
        trained &= following <= windows.last[:, None]
    if events.oldest_target is not None:
        trained &= events.times[following.clamp(max=len(events.times) - 1)] >= events.oldest_target
    chosen = torch.nonzero(trained.flatten()).flatten()
    return _Positions(chosen, chosen // longest, following.flatten()[chosen])
