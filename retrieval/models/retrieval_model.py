"""The trained thing: an item tower and a user encoder that share item vectors."""

import abc
import math
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from retrieval.models.encoder import AbstractUserEncoder
from retrieval.models.fields.events import EventFields
from retrieval.models.fields.users import UserFields
from retrieval.models.fields.vectors import FieldVectors
from retrieval.models.histories import Histories
from retrieval.models.interests import Interests
from retrieval.models.item_tower import ItemTower
from retrieval.models.layers import dropout
from retrieval.models.recurrent import AbstractRecurrentEncoder
from retrieval.models.settings import CountedSettings, EncoderSettings

_MOST_LOG_SCALE = math.log(100.0)


class AbstractRetrievalModel(nn.Module, abc.ABC):
    """What serving needs: the score of an item for a user is the max over valid interests of the inner product."""

    history: int

    @property
    def serves_strangers(self) -> bool:
        """Whether a user without an event has interests, too."""
        return False

    @property
    def reads_context(self) -> bool:
        """Whether histories have to say whose they are."""
        return False

    @property
    @abc.abstractmethod
    def columns(self) -> dict[str, int]:
        """What a scored vector consists of, in order: a name and the number of its dimensions."""

    @abc.abstractmethod
    def interests(self, histories: Histories) -> Interests:
        """The interests of B users."""

    @abc.abstractmethod
    def all_items(self) -> Float[Tensor, "N D"]:
        """The vectors of the whole catalog, as they go into an index."""


class RetrievalModel(AbstractRetrievalModel):
    """Item tower + user encoder + similarity.

    Scored vectors have further dimensions where the settings ask for them: one for the interests' log weights, and,
    outside training, one for the prior of the items.
    """

    prior: Tensor | None
    log_scale: nn.Parameter | None
    """Logarithm of what scores are multiplied with in training, where it is learned (Radford et al., 2021, section 2.5)."""

    def __init__(self, items: ItemTower, encoder: AbstractUserEncoder, settings: EncoderSettings) -> None:
        super().__init__()
        self.items, self.encoder, self.settings = items, encoder, settings
        self.event_fields: EventFields | None = None
        self.user_fields: UserFields | None = None
        self.history = settings.history
        self.log_scale = nn.Parameter(torch.tensor(-math.log(settings.temperature))) if settings.learned_temperature else None
        self.register_buffer("prior", torch.zeros(items.n_items) if settings.prior.hours else None)

    def temperature(self) -> float | Float[Tensor, ""]:
        """What scores are divided by in training; serving does without, for no ranking depends on it.

        A learned scale is held at 100 as CLIP's is: a scale that has run past it comes back as soon as its gradient says
        so, which clamping the value that is used instead of the parameter would prevent.
        """
        if self.log_scale is None:
            return self.settings.temperature
        with torch.no_grad():
            self.log_scale.clamp_(max=_MOST_LOG_SCALE)
        return torch.exp(-self.log_scale)

    def fit_prior(self, counts: Int[Tensor, " N"], fresh: Int[Tensor, " N"]) -> None:
        """Take the items' shares of all training events and of the fresh ones for the prior that the settings ask for."""
        if self.prior is None:
            return
        chosen = self.settings.prior
        logs = [torch.log((each + chosen.smoothing) / (each + chosen.smoothing).sum()) for each in (fresh.double(), counts.double())]
        self.prior.copy_(chosen.weight * logs[0] - logs[1])
        if self.items.fields is not None and (fresh > 0).any():
            # Nothing is counted of what no event has touched, which is no reason to hold it for unwanted.
            known = self.prior[fresh > 0].sort().values
            self.prior[counts == 0] = known[round(chosen.unseen * (len(known) - 1))]

    counted: ClassVar = frozenset({"prior", "items.fields.trained"})
    """The names in the state that are counted from a log and not learned."""

    @property
    def per_item(self) -> frozenset[str]:
        """The names of what is learned for each item, a row each; what else is learned fits any catalog."""
        return frozenset(f"items.{name}" for name in self.items.per_item)

    @property
    def field_tables(self) -> dict[str, FieldVectors]:
        """What reads tables of fields, by the tables' names in the state."""
        named = self.named_modules()
        return {f"{name}.table": module for name, module in named if isinstance(module, FieldVectors) and module.coded}

    @property
    def columns(self) -> dict[str, int]:
        further = {"interest log weight": self.encoder.weighted, "item prior": self.prior is not None}
        return {"encoder": self.settings.dimension, **{name: 1 for name, present in further.items() if present}}

    @property
    def serves_strangers(self) -> bool:
        return self.user_fields is not None and self.user_fields.fields is not None

    @property
    def reads_context(self) -> bool:
        return self.user_fields is not None or self.event_fields is not None

    def interests(self, histories: Histories) -> Interests:
        return self._similar(self._personal(self.encoder(self._events(histories), histories), histories, every=False))

    def prefix_interests(self, histories: Histories) -> Interests:
        """The interests after every position, [B*L,K,D]."""
        return self._similar(self._personal(self.encoder.prefixes(self._events(histories), histories), histories, every=True))

    @property
    def state_size(self) -> int:
        """Numbers in the state of a recurrent encoder.

        Raises:
            TypeError: the encoder is not recurrent.
        """
        return self._recurrent().state_size

    def advance(self, histories: Histories, state: Float[Tensor, "B S"]) -> tuple[Interests, Float[Tensor, "B S"]]:
        """The interests after every position of windows that go on from a state, [B*L,K,D], and the state after them."""
        interests, after = self._recurrent().advance(self._events(histories), histories, state)
        return self._similar(self._personal(interests, histories, every=True)), after

    def _recurrent(self) -> AbstractRecurrentEncoder:
        if not isinstance(self.encoder, AbstractRecurrentEncoder):
            raise TypeError(f"{type(self.encoder).__name__} has no state to go on from")
        return self.encoder

    def item_vectors(self, rows: Int[Tensor, " M"]) -> Float[Tensor, "M D"]:
        """The vectors of some items, as they are scored."""
        return self._scored(self.items(rows), rows)

    def all_items(self) -> Float[Tensor, "N D"]:
        return self._scored(self.items.all_items(), slice(None))

    def held_items(self) -> Float[Tensor, "H D"]:
        """The vectors of the items whose rows lie in this process, as they are scored: all of them, unless the table is sharded."""
        return self._scored(self.items.held_items(), self.items.held)

    def _events(self, histories: Histories) -> Float[Tensor, "B L D"]:
        vectors = self.items(histories.items)
        if self.event_fields is not None:
            # In place: another tensor of this shape costs as much as the lookup.
            vectors = self.event_fields(histories).add_(vectors)
        vectors = vectors * histories.valid[:, :, None]
        return dropout(vectors, self.settings.dropout, self.training)

    def _personal(self, interests: Interests, histories: Histories, *, every: bool) -> Interests:
        """With what is known of the users; `every`: after each position."""
        return interests if self.user_fields is None else self.user_fields(interests, histories, every=every)

    def _similar(self, interests: Interests) -> Interests:
        vectors = [self._scaled(interests.vectors)]
        if interests.log_weights is not None:
            vectors.append(interests.log_weights[:, :, None])
        if self._has_prior:
            vectors.append(vectors[0].new_ones(*vectors[0].shape[:2], 1))
        return Interests(_joined(vectors), interests.valid, interests.routing)

    def _scored(self, vectors: Float[Tensor, "M D"], rows: Int[Tensor, " M"] | slice) -> Float[Tensor, "M S"]:
        """Items as they are scored: a one for the interests' log weights, and their prior."""
        columns = [self._scaled(vectors)]
        if self.encoder.weighted:
            columns.append(vectors.new_ones(len(vectors), 1))
        if self._has_prior and self.prior is not None:
            # Training divides scores by the temperature and serving does not.
            columns.append(self.prior[rows, None] * self.temperature())
        return _joined(columns)

    @property
    def _has_prior(self) -> bool:
        return self.prior is not None and not self.training

    def _scaled(self, vectors: Tensor) -> Tensor:
        return functional.normalize(vectors, dim=-1) if self.settings.similarity == "cosine" else vectors


def _joined(columns: list[Tensor]) -> Tensor:
    """Side by side; a single one is handed on without a copy."""
    return columns[0] if len(columns) == 1 else torch.cat(columns, dim=-1)


class PopularModel(AbstractRetrievalModel):
    """Popularity in one dimension: every user is (1), every item (its count). The back-off of what is counted otherwise."""

    counts: Tensor

    def __init__(self, n_items: int, settings: CountedSettings) -> None:
        super().__init__()
        self.settings, self.history = settings, 1
        self.register_buffer("counts", torch.zeros(n_items))

    def fit(self, counts: Int[Tensor, " N"]) -> None:
        """Take the event counts of the items as their scores."""
        self.counts.copy_(counts)

    @property
    def columns(self) -> dict[str, int]:
        return {"events": 1}

    def interests(self, histories: Histories) -> Interests:
        ones = self.counts.new_ones(len(histories.items), 1, 1)
        return Interests(ones, ones[:, :, 0].bool(), histories.valid[:, None].to(ones.dtype))

    def all_items(self) -> Float[Tensor, "N 1"]:
        return self.counts[:, None]
