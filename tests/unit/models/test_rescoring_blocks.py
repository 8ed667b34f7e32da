"""Every block of DIN and DIEN against a loop written from its formula."""

import math

import pytest
import torch
from torch import nn

from retrieval.models.rescoring.dice import Dice
from retrieval.models.rescoring.dien import AUGRU, DIEN
from retrieval.models.rescoring.din import DIN, ActivationUnit
from retrieval.models.rescoring.model import RESCORERS
from retrieval.models.rescoring.settings import RescorerBlocks

B, L, C, D = 3, 5, 4, 6
BLOCKS = RescorerBlocks(attention=7, hidden=(8, 5))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(3)


def batch(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    """Users of 5, 2 and 0 events with 4, 4 and 3 candidates."""
    valid = torch.arange(L) < torch.tensor([5, 2, 0])[:, None]
    present = torch.arange(C) < torch.tensor([4, 4, 3])[:, None]
    return torch.randn(B, L, D, dtype=dtype), valid, torch.randn(B, C, D, dtype=dtype), present, torch.randn(B, C, dtype=dtype)


def stirred(module: nn.Module) -> nn.Module:
    """With weights that no zero start hides behind."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    for part in module.modules():
        if isinstance(part, Dice):
            part.mean.normal_()
            part.variance.uniform_(0.5, 2.0)
    return module


def number(value: torch.Tensor | float) -> float:
    return float(value.detach()) if isinstance(value, torch.Tensor) else value


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def naive_dice(value: float, alpha: float, mean: float, variance: float) -> float:
    share = sigmoid((value - mean) / math.sqrt(variance + 1e-8))
    return share * value + (1 - share) * alpha * value


def test_dice_in_evaluation_uses_running_moments() -> None:
    dice = stirred(Dice(3)).eval()
    values = torch.randn(4, 3)
    found = dice(values, torch.ones(4, dtype=torch.bool))
    for row in range(4):
        for column in range(3):
            moments = (number(part[column]) for part in (dice.alpha, dice.mean, dice.variance))
            assert number(found[row, column]) == pytest.approx(naive_dice(number(values[row, column]), *moments), abs=1e-5)


def test_dice_in_training_uses_the_rows_that_are_present_and_moves_its_running_moments() -> None:
    dice = Dice(2, momentum=0.25).train()
    with torch.no_grad():
        dice.alpha.copy_(torch.tensor([0.3, -0.2]))
    values, present = torch.randn(6, 2), torch.tensor([True, True, False, True, False, True])
    found = dice(values, present)
    rows = values[present]
    mean, variance = rows.mean(dim=0), rows.var(dim=0, unbiased=False)
    for row in (0, 1, 3, 5):
        for column in range(2):
            moments = (number(part[column]) for part in (dice.alpha, mean, variance))
            assert number(found[row, column]) == pytest.approx(naive_dice(number(values[row, column]), *moments), abs=1e-5)
    assert torch.allclose(dice.mean, 0.25 * mean)
    assert torch.allclose(dice.variance, 0.75 + 0.25 * variance)


def test_dice_by_hand() -> None:
    # mean 0, variance 1: sigmoid(ln 3) = 3/4, and alpha is 0.
    found = Dice(1).eval()(torch.tensor([[math.log(3.0)]]), torch.ones(1, dtype=torch.bool))
    assert number(found) == pytest.approx(0.75 * math.log(3.0))


def test_the_activation_unit_is_one_layer_over_four_parts() -> None:
    unit = stirred(ActivationUnit(D, 7)).eval()
    events, valid, targets, present, _ = batch()
    found = unit(events, valid, targets, present)
    for user in range(B):
        for candidate in range(C):
            for place in range(L):
                q, k = targets[user, candidate], events[user, place]
                hidden = unit.hidden(torch.cat([q, k, q - k, q * k]))
                expected = unit.last(unit.activation(hidden[None], torch.ones(1, dtype=torch.bool)))[0, 0]
                there = bool(valid[user, place] and present[user, candidate])
                assert number(found[user, candidate, place]) == pytest.approx(number(expected) if there else 0.0, abs=1e-4)


def test_din_sums_the_history_by_its_weights_without_a_softmax() -> None:
    din = stirred(DIN(D, BLOCKS)).eval()
    events, valid, targets, present, recalled = batch()
    found, weights = din(events, valid, targets, present, recalled), din.unit(events, valid, targets, present)
    for user in range(B):
        for candidate in range(C):
            read = sum((weights[user, candidate, place] * events[user, place] for place in range(int(valid[user].sum()))), torch.zeros(D))
            seen = torch.cat([read, targets[user, candidate], recalled[user, candidate, None]])
            expected = din.layers(seen[None, None], torch.ones(1, 1, dtype=torch.bool))
            if present[user, candidate]:
                assert number(found[user, candidate]) == pytest.approx(number(expected), abs=1e-4)


def naive_augru(augru: AUGRU, inputs: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
    state = torch.zeros(D)
    for event, weight in zip(inputs, attention, strict=True):
        wu, wr, wh = augru.of_input(event).split(D)
        uu, ur, uh = augru.of_state(state).split(D)
        update, reset = torch.sigmoid(wu + uu), torch.sigmoid(wr + ur)
        new = torch.tanh(wh + reset * uh)
        scaled = weight * update
        state = (1 - scaled) * state + scaled * new
    return state


def test_augru_is_its_formula_step_by_step() -> None:
    augru = stirred(AUGRU(D))
    events, valid, *_ = batch()
    attention = torch.rand(B, C, L)
    found = augru(events, valid, attention)
    for user in range(B):
        length = int(valid[user].sum())
        for candidate in range(C):
            expected = naive_augru(augru, events[user, :length], attention[user, candidate, :length])
            assert torch.allclose(found[user, candidate], expected, atol=1e-5)


def test_an_event_without_attention_leaves_the_state_as_it_is() -> None:
    augru = stirred(AUGRU(D))
    events = torch.randn(1, 3, D)
    attention = torch.tensor([[[0.7, 0.0, 0.0]]])
    one = augru(events[:, :1], torch.ones(1, 1, dtype=torch.bool), attention[:, :, :1])
    assert torch.allclose(augru(events, torch.ones(1, 3, dtype=torch.bool), attention), one)


def test_augru_by_hand() -> None:
    augru = AUGRU(1)
    with torch.no_grad():
        for layer in (augru.of_input, augru.of_state):
            layer.weight.zero_()
            layer.bias.zero_()
        augru.of_input.weight.copy_(torch.tensor([[0.0], [0.0], [1.0]]))
    # Gates are 1/2, the new state tanh(1): 0.8 * 1/2 * tanh(1), and of that 0.6 more with tanh(2) coming in by 0.4.
    found = augru(torch.tensor([[[1.0], [2.0]]]), torch.ones(1, 2, dtype=torch.bool), torch.tensor([[[0.8, 0.8]]]))
    assert number(found) == pytest.approx(0.6 * 0.4 * math.tanh(1) + 0.4 * math.tanh(2), rel=1e-5)


def test_dien_attends_by_softmax_and_its_auxiliary_loss_is_that_of_the_next_events() -> None:
    dien = stirred(DIEN(D, BLOCKS))
    events, valid, targets, present, _ = batch()
    states = dien.states(events, valid)
    attention = dien.attention(states, valid, targets)
    assert torch.allclose(attention.sum(dim=2), torch.tensor([1.0, 1.0, 0.0])[:, None].expand(B, C), atol=1e-6)
    logits = [number(states[1, place] @ dien.attend.weight.T @ targets[1, 2]) for place in range(2)]
    assert number(attention[1, 2, 0]) == pytest.approx(sigmoid(logits[0] - logits[1]), abs=1e-5)
    others, losses = torch.randn(B, L, D), []
    for user in range(B):
        for place in range(int(valid[user].sum()) - 1):
            right, wrong = (number(states[user, place] @ each[user, place + 1]) for each in (events, others))
            losses.append(-math.log(sigmoid(right)) - math.log(1 - sigmoid(wrong)))
    assert number(dien.auxiliary(events, valid, others)) == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    del present


@pytest.mark.parametrize("kind", RESCORERS.values(), ids=RESCORERS)
@pytest.mark.parametrize("training", [False, True])
def test_padding_never_changes_a_score(kind: type, training: bool) -> None:
    model = stirred(kind(D, BLOCKS)).train(training)
    events, valid, targets, present, recalled = batch()
    found = model(events, valid, targets, present, recalled)
    wild = 1e3 * torch.randn(B, L, D)
    changed = torch.where(valid[:, :, None], events, wild)
    wider = torch.cat([changed, wild[:, :2]], dim=1), torch.cat([valid, torch.zeros(B, 2, dtype=torch.bool)], dim=1)
    more = torch.cat([torch.where(present[:, :, None], targets, wild[:, :C]), wild[:, :1]], dim=1)
    there = torch.cat([present, torch.zeros(B, 1, dtype=torch.bool)], dim=1)
    again = model(*wider, more, there, torch.cat([recalled, wild[:, :1, 0]], dim=1))
    assert torch.allclose(again[:, :C][present], found[present], atol=1e-4)
    others = torch.randn(B, L + 2, D)
    assert torch.allclose(model.auxiliary(*wider, others), model.auxiliary(events, valid, others[:, :L]), atol=1e-5)


@pytest.mark.parametrize("kind", RESCORERS.values(), ids=RESCORERS)
def test_other_users_of_a_batch_do_not_matter_when_serving(kind: type) -> None:
    model = stirred(kind(D, BLOCKS)).eval()
    values = batch()
    alone = model(*(each[1:2] for each in values))
    assert torch.allclose(model(*values)[1:2], alone, atol=1e-5)


@pytest.mark.parametrize("kind", RESCORERS.values(), ids=RESCORERS)
def test_gradients_are_those_of_finite_differences(kind: type) -> None:
    model = stirred(kind(D, BLOCKS)).double().train()
    events, valid, targets, present, recalled = batch(torch.float64)
    for each in (events, targets, recalled):
        each.requires_grad_()

    def scored(*inputs: torch.Tensor) -> torch.Tensor:
        gains = model(inputs[0], valid, inputs[1], present, inputs[2]).masked_fill(~present, 0.0)
        return gains.sum() + model.auxiliary(inputs[0], valid, inputs[0].flip(0))

    assert torch.autograd.gradcheck(scored, (events, targets, recalled), atol=1e-5)


@pytest.mark.parametrize("kind", RESCORERS.values(), ids=RESCORERS)
def test_a_fresh_re_scorer_gains_nothing_and_every_weight_can_learn(kind: type) -> None:
    model = kind(D, BLOCKS)
    values = batch()
    assert (model(*values) == 0).all()
    nn.init.normal_(model.layers.last.weight)
    model(*values).masked_fill(~values[3], 0.0).square().sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()] == []
