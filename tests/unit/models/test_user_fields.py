"""Fields of users and events: interests for whoever has no history, the same after every prefix as after the last event."""

import dataclasses
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from retrieval.data.fields.coding import code_column
from retrieval.data.fields.settings import CategoricalField, NumericField
from retrieval.models.fields.inputs import FieldInputs
from retrieval.models.fields.settings import FieldsSettings
from retrieval.models.fields.users import activity_bucket
from retrieval.models.gates.settings import PosoSettings
from retrieval.models.histories import Histories, Owners, gather_histories
from retrieval.models.retrieval_model import RetrievalModel
from retrieval.models.settings import ComiRecSASettings, Gru4RecSettings, InterestTransformerSettings, MindSettings
from retrieval.models.table import build_model

ITEMS, WIDTH, LENGTH, USERS, EVENTS = 20, 8, 6, 3, 30
INPUTS = FieldInputs(
    users=[code_column("country", CategoricalField(), pl.Series(["a", "b", "a"]), np.ones(USERS, dtype=np.int64))],
    events=[
        code_column(
            "device", CategoricalField(), pl.Series([f"d{number % 3}" for number in range(EVENTS)]), np.ones(EVENTS, dtype=np.int64)
        ),
        code_column("rating", NumericField(edges=(5.0,)), pl.Series(np.arange(EVENTS) * 0.3), np.ones(EVENTS, dtype=np.int64)),
    ],
    keys=[code_column("country", CategoricalField(), pl.Series(["a", "b", "a"]), np.ones(USERS, dtype=np.int64))],
    trained=np.ones(ITEMS, dtype=np.bool_),
)
FIELDS = FieldsSettings(users=("country", "activity"), events=("device", "rating"))
START, END = torch.tensor([0, 10, 20]), torch.tensor([10, 14, 20])
"""Ten events, four, none."""


def model_with(settings: Any = None, fields: FieldsSettings = FIELDS) -> RetrievalModel:
    settings = settings or ComiRecSASettings(dimension=WIDTH, history=LENGTH, interests=2)
    model = build_model(settings.model_copy(update={"fields": fields}), ITEMS, 1, fields=INPUTS)
    assert isinstance(model, RetrievalModel)
    torch.manual_seed(5)
    for parameter in model.parameters():
        if parameter.ndim:
            torch.nn.init.normal_(parameter, std=0.4)
    return model.eval()


def histories(end: torch.Tensor = END, length: int = LENGTH) -> Histories:
    items = torch.arange(EVENTS) * 7 % ITEMS
    return gather_histories(items, torch.arange(EVENTS), START, end, length, Owners(torch.arange(USERS), START))


TRANSFORMER = InterestTransformerSettings(dimension=WIDTH, history=LENGTH, interests=2, dropout=0.0)


@pytest.mark.parametrize("settings", [None, TRANSFORMER])
def test_a_user_without_events_has_interests_that_differ(settings: Any) -> None:
    found = model_with(settings).interests(histories())
    assert torch.isfinite(found.vectors).all()
    assert found.valid[2].all()
    assert not torch.equal(found.vectors[2, 0], found.vectors[2, 1])
    country_alone = model_with(fields=FieldsSettings(users=("country",)))
    assert torch.equal(country_alone.interests(histories(START)).vectors[0], country_alone.interests(histories(START)).vectors[2])
    assert not torch.equal(country_alone.interests(histories(START)).vectors[0], country_alone.interests(histories(START)).vectors[1])


@pytest.mark.parametrize(
    "settings",
    [
        ComiRecSASettings(dimension=WIDTH, history=LENGTH, interests=2),
        MindSettings(dimension=WIDTH, history=LENGTH, interests=2),
        InterestTransformerSettings(dimension=WIDTH, history=LENGTH, interests=2, weighted=True),
        Gru4RecSettings(dimension=WIDTH, history=LENGTH),
    ],
    ids=lambda each: each.name,
)
@pytest.mark.parametrize("form", ["none", "mlp", "attention", "mmoe"])
def test_every_prefix_is_served_as_it_is_trained(settings: Any, form: str) -> None:
    poso = PosoSettings(form=form, keys=("activity", "country"), hidden=4)
    model = model_with(settings, FIELDS.model_copy(update={"poso": poso}))
    history = histories()
    every = model.prefix_interests(history)
    for row, events in ((0, 6), (1, 2), (1, 4)):
        keep = torch.arange(LENGTH) < events
        alone = Histories(history.items * keep, history.valid & keep, history.ages * keep, history.context)
        place = row * LENGTH + events - 1
        torch.testing.assert_close(every.vectors[place], model.interests(alone).vectors[row], rtol=1e-4, atol=1e-5)


def test_what_happened_before_the_window_counts() -> None:
    known = histories().context
    assert known is not None
    assert known.before.tolist() == [4, 0, 0]
    assert known.places[0].tolist() == [4, 5, 6, 7, 8, 9]
    model = model_with()
    history = histories()
    assert history.context is not None
    earlier = dataclasses.replace(history, context=dataclasses.replace(history.context, before=torch.tensor([400, 0, 0])))
    changed = (model.interests(history).vectors != model.interests(earlier).vectors).flatten(1).any(dim=1)
    assert changed.tolist() == [True, False, False]


def test_activity_is_counted_in_doublings() -> None:
    assert activity_bucket(torch.tensor([0, 1, 2, 3, 4, 7, 8, 2**16 - 1, 2**16, 10**9])).tolist() == [0, 1, 2, 2, 3, 3, 4, 16, 17, 17]


def test_fields_of_events_change_interests_and_those_of_padding_do_not() -> None:
    model, history = model_with(fields=FieldsSettings(events=("device", "rating"))), histories()
    assert history.context is not None
    moved = torch.where(history.valid, history.context.places, 29)
    other = dataclasses.replace(history, context=dataclasses.replace(history.context, places=moved))
    torch.testing.assert_close(model.interests(history).vectors[:2], model.interests(other).vectors[:2])
    shifted = dataclasses.replace(history, context=dataclasses.replace(history.context, places=(history.context.places + 1) % EVENTS))
    assert not torch.allclose(model.interests(history).vectors[:2], model.interests(shifted).vectors[:2])


@pytest.mark.parametrize("settings", [None, MindSettings(dimension=WIDTH, history=LENGTH, interests=2), TRANSFORMER])
def test_histories_are_left_out_in_training_alone(settings: Any) -> None:
    model = model_with(settings, fields=FIELDS.model_copy(update={"history_dropout": 0.5, "events": ()}))
    whole = model.prefix_interests(histories()).vectors
    assert torch.equal(whole, model.prefix_interests(histories()).vectors)
    model.train()
    torch.manual_seed(0)
    found, valid = model.prefix_interests(histories()), histories().valid.flatten()
    given = found.vectors
    left_out = (given != whole).flatten(1).any(dim=1)[valid]
    assert 0 < int(left_out.sum()) < len(left_out)
    strangers = model.eval().interests(histories(START)).vectors.repeat_interleave(LENGTH, dim=0)
    torch.testing.assert_close(given[valid][left_out], strangers[valid][left_out], msg="left out is what a user without events has")
    served = model.interests(histories(START)).valid.repeat_interleave(LENGTH, dim=0)
    assert torch.equal(found.valid[valid][left_out], served[valid][left_out])


def test_histories_without_their_owners_are_refused() -> None:
    plain = gather_histories(torch.arange(5), torch.arange(5), torch.tensor([0]), torch.tensor([5]), LENGTH)
    for fields in (FieldsSettings(users=("country",)), FieldsSettings(events=("device",))):
        with pytest.raises(LookupError, match="context"):
            model_with(fields=fields).interests(plain)
