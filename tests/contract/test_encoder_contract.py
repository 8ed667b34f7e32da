"""What every user encoder of the table must do."""

import pytest
import torch

from retrieval.models.histories import Histories, gather_histories
from retrieval.models.settings import (
    ComiRecDRSettings,
    ComiRecSASettings,
    EncoderSettings,
    Gru4RecSettings,
    InterestTransformerSettings,
    MindSettings,
    PriorSettings,
    SASRecSettings,
    YouTubeDNNSettings,
)
from retrieval.models.table import ENCODERS, build_model

LENGTH, DIMENSION, ITEMS = 7, 8, 30
SETTINGS = {
    "mind": MindSettings(dimension=DIMENSION, history=LENGTH, interests=3),
    "comirec-dr": ComiRecDRSettings(dimension=DIMENSION, history=LENGTH, interests=3),
    "comirec-sa": ComiRecSASettings(dimension=DIMENSION, history=LENGTH, interests=3),
    "youtube-dnn": YouTubeDNNSettings(dimension=DIMENSION, history=LENGTH, layers=2),
    "gru4rec": Gru4RecSettings(dimension=DIMENSION, history=LENGTH, layers=2),
    "sasrec": SASRecSettings(dimension=DIMENSION, history=LENGTH, heads=2),
    "interest-transformer": InterestTransformerSettings(dimension=DIMENSION, history=LENGTH, interests=3, heads=1, weighted=True),
}


def histories(*lengths: int, seed: int = 0) -> Histories:
    generator = torch.Generator().manual_seed(seed)
    ends = torch.cumsum(torch.tensor(lengths), 0)
    events = int(ends[-1])
    items = torch.randint(ITEMS, (events,), generator=generator)
    return gather_histories(items, torch.arange(events), ends - torch.tensor(lengths), ends, LENGTH)


def part(history: Histories, row: int, events: int) -> Histories:
    keep = torch.arange(LENGTH) < events
    one = slice(row, row + 1)
    return Histories(history.items[one] * keep, history.valid[one] & keep, history.ages[one] * keep)


def test_every_encoder_of_the_table_is_tested() -> None:
    assert set(SETTINGS) == set(ENCODERS)


@pytest.fixture(params=sorted(SETTINGS))
def settings(request: pytest.FixtureRequest) -> EncoderSettings:
    return SETTINGS[request.param]


@pytest.fixture
def model(settings: EncoderSettings):
    return build_model(settings, ITEMS, seed=3).eval()


def test_shapes_and_at_least_one_valid_interest(model, settings) -> None:
    interests = model.interests(histories(3, 7, 1, 12))
    assert interests.vectors.shape == (4, getattr(settings, "interests", 1), DIMENSION + model.encoder.weighted)
    assert interests.valid.dtype == torch.bool
    assert interests.valid.any(dim=1).all()
    assert torch.isfinite(interests.vectors).all()
    assert interests.routing.shape == (4, getattr(settings, "interests", 1), LENGTH)


def test_padding_changes_nothing(model) -> None:
    """Whatever stands behind the history, rows or vectors, the interests are the same."""
    history = histories(3)
    dirty = Histories(torch.where(history.valid, history.items, 29), history.valid, history.ages)
    clean, other = model.interests(history), model.interests(dirty)
    torch.testing.assert_close(clean.vectors, other.vectors, rtol=0, atol=0)


def test_a_user_does_not_depend_on_the_batch(model) -> None:
    together, alone = model.interests(histories(4, 6, 2)), model.interests(part(histories(4, 6, 2), 1, 6))
    torch.testing.assert_close(together.vectors[1:2], alone.vectors)
    assert torch.equal(together.valid[1:2], alone.valid)


def test_serving_twice_gives_the_same_bytes(model) -> None:
    history = histories(5, 7)
    assert torch.equal(model.interests(history).vectors, model.interests(history).vectors)


def test_prefixes_equal_forward_on_every_prefix(model) -> None:
    history = histories(7, 4, 1)
    prefixes = model.prefix_interests(history)
    for row in range(3):
        for events in range(1, int(history.lengths[row]) + 1):
            alone = model.interests(part(history, row, events))
            position = row * LENGTH + events - 1
            assert torch.equal(prefixes.valid[position], alone.valid[0])
            torch.testing.assert_close(prefixes.vectors[position][alone.valid[0]], alone.vectors[0][alone.valid[0]], rtol=1e-4, atol=1e-5)


def test_the_future_of_a_window_does_not_reach_its_prefixes(model) -> None:
    history = histories(7)
    changed = Histories(history.items.clone(), history.valid, history.ages)
    changed.items[0, 4:] = (changed.items[0, 4:] + 11) % ITEMS
    before, after = model.prefix_interests(history).vectors[:4], model.prefix_interests(changed).vectors[:4]
    torch.testing.assert_close(before, after, rtol=0, atol=0)


def test_every_parameter_gets_a_gradient(model) -> None:
    interests = model.prefix_interests(histories(7, 7, 7))
    (interests.vectors * torch.randn_like(interests.vectors)).sum().backward()
    without = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0]
    assert without == []


def test_the_same_seed_gives_the_same_weights_and_leaves_the_generator_alone(settings) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second = build_model(settings, ITEMS, 1).state_dict(), build_model(settings, ITEMS, 1).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(torch.rand(1), expected)


def test_more_interests_than_events_is_no_error(settings) -> None:
    if not hasattr(settings, "interests"):
        pytest.skip("one interest")
    many = build_model(settings.model_copy(update={"interests": 12}), ITEMS, 1)
    assert torch.isfinite(many.interests(histories(2)).vectors).all()


def test_only_what_is_said_to_has_a_row_an_item(settings) -> None:
    """A warm start moves the learned rows to other places, and takes what else is learned as it is."""
    settings = settings.model_copy(update={"prior": PriorSettings(hours=1.0)})
    small, large = (build_model(settings, items, seed=3) for items in (ITEMS, ITEMS + 1))
    other = {name: value.shape for name, value in large.state_dict().items()}
    counted = small.counted & small.state_dict().keys()
    assert {name for name, value in small.state_dict().items() if value.shape != other[name]} == small.per_item | counted
    assert all(len(other[name]) and other[name][0] == ITEMS + 1 for name in small.per_item)
