"""Recurrent encoders: unequal windows, going on from a state, the mean readout."""

import pytest
import torch
from torch import nn

from retrieval.models.histories import Histories
from retrieval.models.recurrent import run_gru
from retrieval.models.settings import Gru4RecSettings
from retrieval.models.table import build_model

LENGTH, DIMENSION, ITEMS = 21, 6, 30


def windows(*lengths: int, seed: int = 0) -> Histories:
    valid = torch.arange(LENGTH) < torch.tensor(lengths)[:, None]
    items = torch.randint(ITEMS, valid.shape, generator=torch.Generator().manual_seed(seed))
    return Histories(items * valid, valid, torch.zeros(valid.shape))


def cut(history: Histories, first: int, last: int) -> Histories:
    return Histories(history.items[:, first:last], history.valid[:, first:last], history.ages[:, first:last])


def model_with(**settings):
    return build_model(Gru4RecSettings(dimension=DIMENSION, history=LENGTH, **settings), ITEMS, 2)


@pytest.mark.parametrize("lengths", [(21, 21), (1, 1, 1), (3, 21, 1, 1, 4, 5, 8, 1), (2, 9, 1, 1), (0, 0), (0, 3)])
def test_blocks_give_the_states_and_gradients_of_plain_padding(lengths: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    layer, lasts = nn.GRU(DIMENSION, DIMENSION, batch_first=True), torch.tensor(lengths)
    inputs, start = torch.randn(len(lengths), LENGTH, DIMENSION), torch.randn(len(lengths), DIMENSION)
    counts = (torch.arange(LENGTH) < lasts[:, None])[:, :, None]
    weights, found = torch.randn(len(lengths), LENGTH, DIMENSION) * counts, []
    for states in (run_gru(layer, inputs, lasts, start), layer(inputs, start[None])[0]):
        gradients = torch.autograd.grad((states * weights).sum(), list(layer.parameters()))
        found.append([states * counts, *gradients])
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("readout", ["last", "mean"])
@pytest.mark.parametrize("layers", [1, 2])
def test_going_on_from_a_state_is_reading_at_once(readout: str, layers: int) -> None:
    model, history = model_with(readout=readout, layers=layers).eval(), windows(21, 17, 13)
    whole = model.prefix_interests(history).vectors.view(3, LENGTH, DIMENSION)
    first, state = model.advance(cut(history, 0, 9), torch.zeros(3, model.state_size))
    second, _ = model.advance(cut(history, 9, LENGTH), state)
    parts = torch.cat([first.vectors.view(3, 9, DIMENSION), second.vectors.view(3, -1, DIMENSION)], dim=1)
    torch.testing.assert_close(parts[history.valid], whole[history.valid])


def test_the_state_after_a_window_is_that_of_its_true_last_event() -> None:
    model = model_with(readout="mean")
    long, short = windows(8, 5), windows(5, 5)
    short = Histories(long.items * short.valid, short.valid, short.ages)
    _, after_long = model.advance(long, torch.zeros(2, model.state_size))
    _, after_short = model.advance(short, torch.zeros(2, model.state_size))
    torch.testing.assert_close(after_long[1], after_short[1])
    assert not torch.allclose(after_long[0], after_short[0])


def test_the_mean_readout_is_the_mean_of_the_last_ones_states() -> None:
    last, mean = model_with(), model_with(readout="mean")
    mean.load_state_dict(last.state_dict())
    history = windows(4, 11)
    states = last.prefix_interests(history).vectors.view(2, LENGTH, DIMENSION)
    expected = torch.stack([states[0, :4].mean(dim=0), states[1, :11].mean(dim=0)])
    torch.testing.assert_close(mean.interests(history).vectors[:, 0], expected)


def test_shares_of_the_events_leave_out_padding_and_sum_to_at_most_one() -> None:
    for readout in ("last", "mean"):
        history = windows(4, 21, 1)
        routing = model_with(readout=readout).eval().interests(history).routing[:, 0]
        assert bool((routing > 0).equal(history.valid))
        assert float(routing.sum(dim=1).max()) <= 1.0


def test_dropout_spares_the_state_that_is_kept() -> None:
    model, history = model_with(hidden_dropout=0.5), windows(6, 6)
    start = torch.zeros(2, model.state_size)
    (first, state), (second, again) = model.train().advance(history, start), model.advance(history, start)
    assert not torch.equal(first.vectors, second.vectors)
    assert torch.equal(state, again)
    torch.testing.assert_close(state, model.eval().advance(history, start)[1])


def test_only_a_recurrent_encoder_goes_on_from_a_state() -> None:
    from retrieval.models.settings import YouTubeDNNSettings

    other = build_model(YouTubeDNNSettings(dimension=DIMENSION, history=LENGTH), ITEMS, 1)
    with pytest.raises(TypeError, match="YouTubeDNN has no state"):
        other.advance(windows(2), torch.zeros(1, 3))
