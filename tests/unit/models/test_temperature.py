"""The temperature of scores, given and learned."""

import pytest
import torch

from retrieval.losses.settings import LossSettings
from retrieval.models.histories import gather_histories
from retrieval.models.retrieval_model import RetrievalModel
from retrieval.models.settings import ComiRecSASettings
from retrieval.models.table import build_model
from retrieval.training.examples import TrainingEvents, Windows
from retrieval.training.objective import Objective
from retrieval.training.optimizer import Optimizer
from retrieval.training.settings import OptimizerSettings

ITEMS = torch.tensor([3, 1, 4, 1, 5, 2, 0, 5])


def make(*, learned: bool, temperature: float = 0.1) -> RetrievalModel:
    settings = ComiRecSASettings(dimension=8, history=4, similarity="cosine", temperature=temperature, learned_temperature=learned)
    return build_model(settings, 6, 1)


def objective(model: RetrievalModel) -> Objective:
    events = TrainingEvents(ITEMS, torch.arange(8), torch.tensor([0, 4]), torch.tensor([4, 4]))
    return Objective(model, events, LossSettings(name="full-softmax"), torch.float32, 1)


def loss_of(model: RetrievalModel) -> torch.Tensor:
    start = torch.tensor([0, 4])
    return objective(model)(Windows(start, start + 3, start + 3), 0, least_history=1)


def test_a_learned_temperature_begins_as_the_given_one() -> None:
    given, learned = make(learned=False), make(learned=True)
    assert given.temperature() == 0.1
    torch.testing.assert_close(loss_of(learned), loss_of(given))


def test_its_gradient_is_that_of_the_formula() -> None:
    model, shift = make(learned=True), 1e-2
    gradient = torch.autograd.grad(loss_of(model), model.log_scale)[0]
    values = []
    for sign in (1.0, -1.0):
        with torch.no_grad():
            model.log_scale.add_(sign * shift)
            values.append(float(loss_of(model)))
            model.log_scale.sub_(sign * shift)
    assert float(gradient) == pytest.approx((values[0] - values[1]) / (2 * shift), rel=1e-2)


def test_the_scale_is_held_at_a_hundred_and_comes_back() -> None:
    model = make(learned=True)
    with torch.no_grad():
        model.log_scale.fill_(9.0)
    temperature = model.temperature()
    assert float(temperature.detach()) == pytest.approx(0.01)
    assert float(torch.autograd.grad(temperature, model.log_scale)[0]) == pytest.approx(-0.01)


def test_serving_does_not_know_it() -> None:
    model = make(learned=True).eval()
    histories = gather_histories(ITEMS, torch.arange(8), torch.tensor([0]), torch.tensor([4]), 4)
    before = model.interests(histories).vectors.detach().clone(), model.all_items().detach().clone()
    with torch.no_grad():
        model.log_scale.add_(1.0)
    assert all(torch.equal(*pair) for pair in zip(before, (model.interests(histories).vectors, model.all_items()), strict=True))


def test_it_is_saved_with_the_weights_and_only_where_it_is_learned() -> None:
    model, other = make(learned=True), make(learned=True, temperature=1.0)
    other.load_state_dict(model.state_dict())
    assert float(other.temperature().detach()) == pytest.approx(0.1)
    assert "log_scale" not in make(learned=False).state_dict()


@pytest.mark.parametrize("row_wise", [False, True])
def test_it_learns_and_does_not_decay(row_wise: bool) -> None:
    model = make(learned=True)
    optimizer = Optimizer(model, OptimizerSettings(weight_decay=0.5, learning_rate=0.1), row_wise=row_wise)
    before = float(model.log_scale.detach())
    for gradient in (0.0, 1.0):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, gradient) if parameter.requires_grad else None
        optimizer._adam.step()
        moved = float(model.log_scale.detach()) != before
        assert moved is (gradient > 0)
    assert optimizer.fits({name: tuple(value.shape) for name, value in optimizer.state().items()})
