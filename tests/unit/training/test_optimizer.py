"""The optimizer: dense equals torch's, row-wise equals the naive form over the whole table."""

import itertools

import pytest
import torch

from retrieval.core.errors import UsageError
from retrieval.core.settings import parse_settings
from retrieval.models.item_tower import ItemTower
from retrieval.models.lookups import Lookups
from retrieval.models.retrieval_model import RetrievalModel
from retrieval.models.settings import YouTubeDNNSettings
from retrieval.models.table import build_model
from retrieval.training.optimizer import ROW_WISE_FROM, Optimizer, RowWiseAdam, has_row_wise_table
from retrieval.training.settings import OptimizerSettings, TrainSettings

ITEMS, WIDTH = 30, 4


def model() -> RetrievalModel:
    built = build_model(YouTubeDNNSettings(dimension=WIDTH, history=5), ITEMS, 3)
    assert isinstance(built, RetrievalModel)
    return built


def loss_of(trained: RetrievalModel, step: int) -> torch.Tensor:
    """Reads the table three times, padding included, as the objective does."""
    generator = torch.Generator().manual_seed(step)
    rows = torch.randint(1, 12, (3, 5), generator=generator)
    valid = torch.rand(3, 5, generator=generator) < 0.7
    history = (trained.items(rows * valid) * valid[:, :, None]).sum(dim=1)
    scores = trained.encoder.layers(history) @ trained.items(torch.randint(1, 20, (6,), generator=generator)).T
    return torch.nn.functional.cross_entropy(scores, torch.tensor([0, 2, 5])) + trained.items(rows[:, 0]).square().sum()


def test_lookups_give_the_rows_of_the_dense_gradient() -> None:
    dense, row_wise = model(), model()
    loss_of(dense, 1).backward()
    lookups = row_wise.items.read_row_wise()
    loss_of(row_wise, 1).backward()
    rows, values = lookups.gradients(row_wise.items.embedding.weight)
    expected = dense.items.embedding.weight.grad
    assert rows.tolist() == expected.abs().sum(dim=1).nonzero().flatten().tolist()
    torch.testing.assert_close(values, expected[rows])
    assert row_wise.items.embedding.weight.grad is None
    lookups.clear()
    row_wise.items(torch.tensor([4, 4, 2])).sum().backward()
    assert lookups.gradients(row_wise.items.embedding.weight).rows.tolist() == [2, 4]


def test_nothing_is_remembered_without_gradients() -> None:
    tower = ItemTower(ITEMS, WIDTH)
    lookups = tower.read_row_wise()
    with torch.no_grad():
        tower(torch.arange(5))
    used = tower(torch.tensor([7]))
    used.sum().backward()
    assert lookups.gradients(tower.embedding.weight).rows.tolist() == [7]
    torch.testing.assert_close(used[0], tower.all_items()[7])


def test_dense_is_clipping_and_adamw_of_torch_to_the_bit() -> None:
    ours, theirs = model(), model()
    settings = OptimizerSettings(learning_rate=0.02, weight_decay=0.1)
    optimizer = Optimizer(ours, settings, row_wise=False)
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.02, weight_decay=0.1, fused=True)
    for step in range(5):
        optimizer.clear()
        loss_of(ours, step).backward()
        norm = optimizer.collect(0.5)
        optimizer.step(0.02)
        reference.zero_grad()
        loss_of(theirs, step).backward()
        assert torch.equal(norm, torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5))
        reference.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_row_wise_is_the_naive_sweep_of_the_whole_table() -> None:
    ours, naive = model(), model()
    optimizer = Optimizer(ours, OptimizerSettings(weight_decay=0.1), row_wise=True)
    others = torch.optim.AdamW(naive.encoder.parameters(), weight_decay=0.1)
    table, moment = naive.items.embedding.weight, torch.zeros(ITEMS)
    for step in range(1, 9):
        rate = 0.02 / step
        optimizer.clear()
        loss_of(ours, step).backward()
        norm = optimizer.collect(0.5)
        optimizer.step(rate)
        naive.zero_grad()
        loss_of(naive, step).backward()
        torch.testing.assert_close(norm, torch.nn.utils.clip_grad_norm_(naive.parameters(), 0.5))
        others.param_groups[0]["lr"] = rate
        others.step()
        moment = 0.999 * moment + 0.001 * table.grad.square().mean(dim=1)
        touched = (table.grad != 0).any(dim=1)
        moved = table * (1 - rate * 0.1) - rate * table.grad / ((moment / (1 - 0.999**step)).sqrt() + 1e-8)[:, None]
        table.data = torch.where(touched[:, None], moved, table).detach()
    assert 0 < int(touched.sum()) < ITEMS
    for a, b in zip(ours.state_dict().values(), naive.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("row_wise", [False, True])
def test_a_restored_state_goes_on_with_the_same_bits(row_wise: bool) -> None:
    def go(trained: RetrievalModel, optimizer: Optimizer, steps: range) -> None:
        for step in steps:
            optimizer.clear()
            loss_of(trained, step).backward()
            optimizer.collect(1.0)
            optimizer.step(0.02)

    whole = model()
    first = Optimizer(whole, OptimizerSettings(), row_wise=row_wise)
    go(whole, first, range(4))
    state = {name: value.clone() for name, value in first.state().items()}
    halfway = {name: value.clone() for name, value in whole.state_dict().items()}
    go(whole, first, range(4, 8))
    parts = model()
    second = Optimizer(parts, OptimizerSettings(), row_wise=row_wise)
    assert second.fits({name: tuple(value.shape) for name, value in state.items()})
    assert not Optimizer(model(), OptimizerSettings(), row_wise=not row_wise).fits(
        {name: tuple(value.shape) for name, value in state.items()}
    )
    parts.load_state_dict(halfway)
    for name, value in second.state().items():
        value.copy_(state.pop(name))
    second.restore(state)
    go(parts, second, range(4, 8))
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in parts.state_dict().items())


def test_a_table_is_not_swept_by_a_step() -> None:
    table = torch.ones(ITEMS, WIDTH)
    tower = ItemTower(ITEMS, WIDTH)
    adam = RowWiseAdam(table, tower.read_row_wise(), OptimizerSettings(weight_decay=0.5))
    adam.lookups.read(table, torch.tensor([3, 9])).sum().backward()
    adam.collect()
    adam.step(0.1)
    assert table.ne(1).any(dim=1).nonzero().flatten().tolist() == [3, 9]


def test_shares_of_a_table_move_as_the_whole_does_bit_for_bit() -> None:
    """Rows that were idle for a while, at other places of an array than in the whole."""
    generator = torch.Generator().manual_seed(1)
    table, last = torch.randn(3000, WIDTH, generator=generator), torch.randint(2000, (3000,), generator=generator)
    rows = torch.randperm(3000, generator=generator)[:2000]
    direction = torch.randn(2000, WIDTH, generator=generator)

    def moved(held: slice) -> torch.Tensor:
        adam = RowWiseAdam(table[held].clone(), Lookups(), OptimizerSettings(weight_decay=0.1), held)
        state = adam.state()
        state["last"].copy_(last[held])
        state["moment"].copy_(table[held, 0].square())
        state["steps"].fill_(2000)
        (adam.lookups.read(table, rows) * direction).sum().backward()
        adam.collect()
        adam.step(0.1)
        return torch.cat([adam.table, state["moment"][:, None], state["last"][:, None]], dim=1)

    whole, bounds = moved(slice(0, 3000)), [*range(0, 3000, 10), 3000, 3000]
    assert torch.equal(whole, torch.cat([moved(slice(first, past)) for first, past in itertools.pairwise(bounds)]))
    assert whole[:, :WIDTH].ne(table).any(dim=1).sum() == 2000


@pytest.mark.parametrize(
    ("values", "n_items", "expected"),
    [
        ({}, ROW_WISE_FROM - 1, False),
        ({}, ROW_WISE_FROM, True),
        ({"loss": {"name": "full-softmax"}}, ROW_WISE_FROM, False),
        ({"optimizer": {"item_table": "dense"}}, ROW_WISE_FROM, False),
        ({"optimizer": {"item_table": "row-wise"}}, 2, True),
    ],
)
def test_auto_goes_by_the_catalog_and_the_loss(values: dict, n_items: int, expected: bool) -> None:
    assert has_row_wise_table(parse_settings(TrainSettings, values, "test"), n_items) == expected


def test_a_loss_over_the_whole_catalog_refuses_a_row_wise_table() -> None:
    values = {"loss": {"name": "full-softmax"}, "optimizer": {"item_table": "row-wise"}}
    with pytest.raises(UsageError, match=r"'row-wise' does not go with loss\.name = 'full-softmax'"):
        parse_settings(TrainSettings, values, "test")
