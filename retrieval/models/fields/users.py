"""What is known of users besides their events: interests of their own, and gates over what events made."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from retrieval.data.fields.settings import ACTIVITY
from retrieval.models.fields.inputs import FieldInputs
from retrieval.models.fields.settings import FieldsSettings
from retrieval.models.fields.tower import GatedSum
from retrieval.models.fields.vectors import FieldVectors
from retrieval.models.gates.poso import PosoModule, build_poso
from retrieval.models.histories import Context, Histories
from retrieval.models.interests import Interests

_DOUBLINGS = 16
_SPREAD = 0.02


class Stages(NamedTuple):
    """Users, each after so many events."""

    rows: Int[Tensor, " R"]
    activity: Int[Tensor, " R"]
    """Bucketised."""


class UserFields(nn.Module):
    """Interests from events -> interests from events and fields.

    u_k = encoder_k + W_k sum_f v_f, v the gated fields of the user; then a POSO module where the settings ask for one. A
    user without events has the second term alone, in the first `alone` interests, and in training so has a share of the
    examples. W_k begins small and differs between interests, so that those of a user without events can part.
    """

    def __init__(self, inputs: FieldInputs, dimension: int, interests: int, settings: FieldsSettings, alone: int) -> None:
        super().__init__()
        self.history_dropout, self.alone = settings.history_dropout, alone
        self.fields = KnownOfUsers(inputs, dimension, settings) if settings.users else None
        self.spread = nn.Linear(dimension, interests * dimension, bias=False) if settings.users else None
        if self.spread is not None:
            nn.init.normal_(self.spread.weight, std=_SPREAD)
        self.keys = GateKeys(inputs, settings.poso.hidden, settings.poso.keys) if settings.poso.form != "none" else None
        width = 0 if self.keys is None else self.keys.width
        self.poso: PosoModule | None = build_poso(settings.poso, dimension, width)

    def forward(self, found: Interests, histories: Histories, *, every: bool) -> Interests:
        """The interests after every position, or after the last one.

        Raises:
            LookupError: the histories do not say whose they are.
        """
        if histories.context is None:
            raise LookupError("a model that reads fields of users needs histories with their context")
        seen = self._seen(histories, every=every)
        vectors, log_weights, valid = found.vectors, found.log_weights, found.valid
        if not self.training or self.history_dropout:  # what trains has some event
            vectors = vectors.masked_fill((seen == 0)[:, None, None], 0.0)
            log_weights = None if log_weights is None else log_weights.masked_fill((seen == 0)[:, None], 0.0)
            # As many as will be served, though the encoder has counted the events that are left out, or has none to count.
            alone = torch.arange(valid.shape[1], device=valid.device) < (1 if self.spread is None else self.alone)
            valid = torch.where((seen > 0)[:, None], valid, alone)
        distinct, places = _alike(histories.context, seen)
        if self.fields is not None and self.spread is not None:
            own = self.spread(self.fields(distinct))
            vectors = functional.embedding(places, own).view_as(vectors).add_(vectors)
        if self.poso is not None and self.keys is not None:
            vectors = self.poso(vectors, valid, self.keys(distinct)[places])
        return Interests(vectors, valid, found.routing, log_weights)

    def _seen(self, histories: Histories, *, every: bool) -> Int[Tensor, " R"]:
        """The events of the users, none where they are left out."""
        seen = seen_events(histories, every=every)
        if not (self.training and self.history_dropout):
            return seen
        return seen * (torch.rand(len(seen), device=seen.device) >= self.history_dropout)


class KnownOfUsers(nn.Module):
    """Users, after so many events -> the sum of their gated fields."""

    def __init__(self, inputs: FieldInputs, dimension: int, settings: FieldsSettings) -> None:
        super().__init__()
        self.vectors = FieldVectors(inputs.users, dimension) if inputs.users else None
        self.activity = _activity(dimension) if ACTIVITY in settings.users else None
        self.sum = GatedSum(len(settings.users), dimension, settings)

    @property
    def names(self) -> list[str]:
        """Of the fields, in the order of `parts`."""
        return [*([] if self.vectors is None else self.vectors.names), *([] if self.activity is None else [ACTIVITY])]

    def forward(self, users: Stages) -> Float[Tensor, "R D"]:
        found: Tensor = self.sum(self.parts(users))
        return found

    def parts(self, users: Stages) -> Float[Tensor, "R F D"]:
        """The vectors of the fields."""
        return _fields(self.vectors, self.activity, users)


class GateKeys(nn.Module):
    """Users, after so many events -> what POSO's gates see of them, [R, width]."""

    def __init__(self, inputs: FieldInputs, dimension: int, keys: tuple[str, ...]) -> None:
        super().__init__()
        self.vectors = FieldVectors(inputs.keys, dimension) if inputs.keys else None
        self.activity = _activity(dimension) if ACTIVITY in keys else None
        self.width = len(keys) * dimension

    def forward(self, users: Stages) -> Float[Tensor, "R W"]:
        return _fields(self.vectors, self.activity, users).flatten(1)


def _activity(dimension: int) -> nn.Embedding:
    return nn.Embedding(_DOUBLINGS + 2, dimension, _weight=dimension**-0.5 * torch.randn(_DOUBLINGS + 2, dimension))


def _fields(vectors: FieldVectors | None, activity: nn.Embedding | None, users: Stages) -> Float[Tensor, "R F D"]:
    parts = [] if vectors is None else [vectors(users.rows)]
    parts += [] if activity is None else [activity(users.activity)[:, None]]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _alike(context: Context, seen: Int[Tensor, " R"]) -> tuple[Stages, Int[Tensor, " R"]]:
    """The distinct users at their stages, and which of them every row is: all that fields and gates can tell apart."""
    buckets = activity_bucket(seen)
    users = torch.arange(len(context.users), device=seen.device).repeat_interleave(len(seen) // max(1, len(context.users)))
    distinct, places = torch.unique(users * (_DOUBLINGS + 2) + buckets, return_inverse=True)
    return Stages(context.users[distinct // (_DOUBLINGS + 2)], distinct % (_DOUBLINGS + 2)), places


def activity_bucket(events: Int[Tensor, " R"]) -> Int[Tensor, " R"]:
    """0 for none, then 1 + floor(log2 n), the same from 2^16 on."""
    powers = 2 ** torch.arange(_DOUBLINGS + 1, device=events.device)
    return torch.bucketize(events, powers, right=True)


def seen_events(histories: Histories, *, every: bool) -> Int[Tensor, " R"]:
    """How many events the users have had after every position, or after the last one, those before the window among them."""
    assert histories.context is not None  # noqa: S101 - the callers have looked
    before = histories.context.before
    if every:
        return (before[:, None] + histories.valid.cumsum(dim=1)).flatten()
    return before + histories.lengths
