"""Fields in the item tower: the vectors of a naive loop, made once a step, ids left out where they know nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from retrieval.data.fields.coding import FieldColumn, code_column
from retrieval.data.fields.settings import CategoricalField, MultiField, NumericField, VectorField
from retrieval.data.sequences import SequenceDataset
from retrieval.losses.settings import LossSettings
from retrieval.models import item_tower
from retrieval.models.fields.inputs import FieldInputs
from retrieval.models.fields.settings import FieldsSettings
from retrieval.models.fields.vectors import FieldVectors, row_names
from retrieval.models.retrieval_model import RetrievalModel
from retrieval.models.settings import ComiRecSASettings
from retrieval.models.table import build_model
from retrieval.stages.train import _take_best
from retrieval.training.examples import Prefixes, TrainingEvents
from retrieval.training.objective import Objective
from retrieval.training.optimizer import Optimizer
from retrieval.training.settings import ExampleSettings, OptimizerSettings

ITEMS, WIDTH = 24, 8
TRAINED = np.arange(ITEMS) < 20


def columns(n_items: int = ITEMS) -> list[FieldColumn]:
    random, events = np.random.default_rng(2), np.ones(n_items, dtype=np.int64)
    lists = [[f"t{number}" for number in random.integers(0, 6, size=random.integers(0, 4))] for _ in range(n_items)]
    other = [[f"u{number}" for number in random.integers(0, 3, size=2)] for _ in range(n_items)]
    return [
        code_column("numbers", NumericField(), pl.Series(random.normal(size=n_items)), events),
        code_column("tags", MultiField(), pl.Series(lists, dtype=pl.List(pl.String)), events),
        code_column("letter", CategoricalField(), pl.Series(random.choice(["a", "b", "c"], n_items)), events),
        code_column("others", MultiField(), pl.Series(other, dtype=pl.List(pl.String)), events),
        code_column("price", NumericField(buckets=3), pl.Series(random.normal(size=n_items)), events),
        code_column("image", VectorField(dimension=3), pl.Series(random.normal(size=(n_items, 3)).tolist()), events),
    ]


def model_with(found: Sequence[FieldColumn] | None = None, **fields: Any) -> RetrievalModel:
    found = columns() if found is None else found
    names = tuple(each.coding.name for each in found)
    settings = ComiRecSASettings(dimension=WIDTH, history=6, interests=2, fields=FieldsSettings.model_validate({"items": names, **fields}))
    model = build_model(settings, ITEMS, 1, fields=FieldInputs(items=found, trained=TRAINED) if names else None)
    assert isinstance(model, RetrievalModel)
    if model.items.fields is not None:
        torch.manual_seed(0)
        if model.items.fields.vectors.coded:
            torch.nn.init.normal_(model.items.fields.vectors.table)
    return model


def naive(vectors: FieldVectors, found: Sequence[FieldColumn], row: int) -> dict[str, torch.Tensor]:
    """The vector of every field of a row, one after the other."""
    by_name, tables, start = {each.coding.name: each for each in found}, {}, 0
    for name in [name for name in vectors.names if by_name[name].coding.rows]:
        tables[name] = vectors.table[start : start + by_name[name].coding.rows]
        start += by_name[name].coding.rows
    products = iter(vectors.products)
    expected = {}
    for name in vectors.names:
        column = by_name[name]
        if column.values is not None:
            expected[name] = next(products)(torch.from_numpy(column.values[row]))
        elif column.offsets is not None:
            own = column.codes[column.offsets[row] : column.offsets[row + 1]]
            expected[name] = sum(tables[name][code] for code in own.tolist()) / len(own)
        else:
            expected[name] = tables[name][int(column.codes[row])]
    return expected


def test_the_vectors_of_fields_are_those_of_a_loop() -> None:
    found = columns()
    fields = model_with(found).items.fields
    assert fields is not None
    assert sorted(fields.vectors.names) == sorted(each.coding.name for each in found)
    rows = torch.tensor([5, 0, 23, 5])
    given = fields.vectors(rows)
    for place, row in enumerate(rows.tolist()):
        expected = naive(fields.vectors, found, row)
        torch.testing.assert_close(given[place], torch.stack([expected[name] for name in fields.vectors.names]))


@pytest.mark.parametrize("chosen", [[0], [5], [1], [2], [1, 3], [0, 5], [2, 4], [0, 1]])
def test_any_choice_of_fields_is_one_lookup(chosen: list[int]) -> None:
    found = [columns()[number] for number in chosen]
    fields = model_with(found).items.fields
    assert fields is not None
    expected = naive(fields.vectors, found, 7)
    torch.testing.assert_close(fields.vectors(torch.tensor([7]))[0], torch.stack([expected[name] for name in fields.vectors.names]))


def test_ids_and_encoder_begin_as_they_do_without_fields() -> None:
    plain, with_fields = model_with([]).state_dict(), model_with().state_dict()
    assert all(torch.equal(value, with_fields[name]) for name, value in plain.items())
    assert not any("codes" in name or "values" in name for name in with_fields), "codes belong to the dataset"


def test_an_item_without_a_training_event_is_its_fields() -> None:
    model = model_with().eval()
    before = model.all_items().detach().clone()
    with torch.no_grad():
        model.items.embedding.weight.add_(1.0)
    moved = (model.all_items() - before).abs().amax(dim=1) > 0
    assert torch.equal(moved, torch.from_numpy(TRAINED))
    assert len(torch.unique(before[~torch.from_numpy(TRAINED)], dim=0)) == 4, "fields tell them apart"


def test_ids_are_left_out_in_training_alone() -> None:
    model = model_with(id_dropout=0.5)
    rows = torch.arange(20)
    whole = model.eval().item_vectors(rows)
    assert torch.equal(whole, model.item_vectors(rows))
    changed = (model.train().item_vectors(rows) != whole).any(dim=1)
    assert 0 < int(changed.sum()) < 20
    assert torch.equal(model_with().train().item_vectors(rows), model_with().eval().item_vectors(rows))


def test_rows_made_once_are_the_rows_made_alone() -> None:
    model = model_with()
    rows, others = torch.tensor([[3, 3], [7, 0]]), torch.tensor([7, 23])
    alone = model.items(rows), model.items(others)
    with model.items.once([rows, others]):
        torch.testing.assert_close((model.items(rows), model.items(others)), alone)
        with pytest.raises(LookupError):
            model.items(torch.tensor([1]))
    torch.testing.assert_close(model.items(torch.arange(ITEMS)), model.all_items())


def objective_of(model: RetrievalModel, *, row_wise: bool = False, **loss: Any) -> tuple[Objective, Prefixes]:
    random = np.random.default_rng(1)
    items = torch.from_numpy(random.integers(20, size=120).astype(np.int32))
    start, count = torch.arange(0, 120, 10), torch.full((12,), 10)
    events = TrainingEvents(items, torch.arange(120), start, count)
    if row_wise:
        model.items.read_row_wise()
    examples = Prefixes(events, 6, ExampleSettings(batch_size=6), 1)
    return Objective(model, events, LossSettings(**loss), torch.float32, 1, examples), examples


@pytest.mark.parametrize(
    "loss", [{"name": "full-softmax"}, {"name": "full-softmax", "leave_out": "future"}, {"sampler": "uniform", "negatives": 64}]
)
def test_what_training_has_not_seen_is_no_competitor(loss: dict[str, Any]) -> None:
    names = pl.Series(["old"] * 20 + ["new"] * 4)
    model = model_with([code_column("age", CategoricalField(), names, np.ones(ITEMS, dtype=np.int64))])
    objective, examples = objective_of(model, **loss)
    objective(examples.batch(0), 0, least_history=1).backward()
    assert model.items.fields is not None
    gradient = model.items.fields.vectors.table.grad
    assert gradient is not None
    by_name = dict(zip(["unknown", "new", "old"], gradient.abs().amax(dim=1).tolist(), strict=True))
    assert by_name["old"] > 0
    assert by_name["new"] == 0


def test_a_full_softmax_over_trained_items_is_the_plain_one() -> None:
    """Fields that say nothing, all items trained: the loss is that of ids."""
    plain, fielded = model_with([]), model_with([columns()[2]])
    assert fielded.items.fields is not None
    torch.nn.init.zeros_(fielded.items.fields.vectors.table)
    fielded.items.fields.trained.fill_(True)
    for loss in ({"name": "full-softmax"}, {"name": "full-softmax", "leave_out": "window"}, {"sampler": "popularity"}):
        losses = []
        for model in (plain, fielded):
            objective, examples = objective_of(model, **loss)
            losses.append(objective(examples.batch(0), 0, least_history=1))
        torch.testing.assert_close(losses[0], losses[1])


def test_a_table_read_row_by_row_has_the_same_gradients() -> None:
    dense, sparse = model_with(), model_with()
    for model, row_wise in ((dense, False), (sparse, True)):
        objective, examples = objective_of(model, row_wise=row_wise, negatives=16)
        objective(examples.batch(0), 0, least_history=1).backward()
    assert sparse.items.lookups is not None
    found = sparse.items.lookups.gradients(sparse.items.embedding.weight)
    assert dense.items.embedding.weight.grad is not None
    torch.testing.assert_close(found.values, dense.items.embedding.weight.grad[found.rows])
    assert dense.items.fields is not None
    assert sparse.items.fields is not None
    torch.testing.assert_close(sparse.items.fields.vectors.table.grad, dense.items.fields.vectors.table.grad)


def test_a_table_of_fields_read_row_by_row_has_the_dense_gradient_in_the_rows_that_are_read() -> None:
    """Of single codes and of lists, read twice in a step."""
    dense, sparse = (model_with().items.fields.vectors for _ in range(2))
    lookups, direction = sparse.read_row_wise(), torch.randn(5, len(dense), WIDTH, generator=torch.Generator().manual_seed(3))
    for each in (dense, sparse):
        for rows in (torch.tensor([5, 0, 23, 5, 7]), torch.tensor([5, 5, 1, 2, 3])):
            (each(rows) * direction).sum().backward()
    found, expected = lookups.gradients(sparse.table), dense.table.grad
    assert found.rows.tolist() == expected.ne(0).any(dim=1).nonzero().flatten().tolist()
    assert 0 < len(found.rows) < len(expected)
    torch.testing.assert_close(found.values, expected[found.rows])
    assert sparse.table.grad is None
    for own, other in zip(sparse.products.parameters(), dense.products.parameters(), strict=True):
        assert torch.equal(own.grad, other.grad)
    lookups.clear()
    nothing = lookups.gradients(sparse.table)
    assert (nothing.rows.shape, nothing.values.shape) == ((0,), (0, WIDTH))


def test_a_large_table_of_fields_moves_as_a_sweep_would_move_it_and_goes_on_after_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row-wise Adam of the dense gradient over the whole table; rows that no step reads stay as they are, bit for bit."""
    monkeypatch.setattr("retrieval.training.optimizer.ROW_WISE_FROM", 3)
    chosen = [columns()[number] for number in (1, 2)]
    ours, swept, settings = model_with(chosen), model_with(chosen), OptimizerSettings(weight_decay=0.1)
    optimizers = (
        Optimizer(ours, settings, row_wise=False),
        Optimizer(swept, settings.model_copy(update={"item_table": "dense"}), row_wise=False),
    )
    assert "items.fields.vectors.table.moment" in optimizers[0].state()
    assert "items.fields.vectors.table.moment" not in optimizers[1].state()
    objective = {id(model): objective_of(model, negatives=8) for model in (ours, swept)}
    table, start = swept.items.fields.vectors.table, ours.items.fields.vectors.table.detach().clone()
    moment = torch.zeros(len(table))
    ever = torch.zeros(len(table), dtype=torch.bool)
    for step in range(1, 6):
        for model, optimizer in zip((ours, swept), optimizers, strict=True):
            optimizer.clear()
            loss, examples = objective[id(model)]
            loss(examples.batch(step), step, least_history=1).backward()
        norms = [optimizer.collect(0.5) for optimizer in optimizers]
        torch.testing.assert_close(*norms)
        gradient, before = table.grad.clone(), table.detach().clone()
        touched = gradient.ne(0).any(dim=1)
        ever |= touched
        for optimizer in optimizers:
            optimizer.step(0.02)
        moment = 0.999 * moment + 0.001 * gradient.square().mean(dim=1)
        moved = before * (1 - 0.02 * 0.1) - 0.02 * gradient / ((moment / (1 - 0.999**step)).sqrt() + 1e-8)[:, None]
        table.data = torch.where(touched[:, None], moved, before)
        torch.testing.assert_close(ours.items.fields.vectors.table, table)
        # Else the two would drift apart by what dense AdamW makes of everything else's rounding.
        swept.load_state_dict(ours.state_dict())
    assert 0 < int(ever.sum()) < len(table)
    assert torch.equal(ours.items.fields.vectors.table[~ever], start[~ever])

    restarted = model_with(chosen)
    restarted.load_state_dict(ours.state_dict())
    again, state = Optimizer(restarted, settings, row_wise=False), {name: value.clone() for name, value in optimizers[0].state().items()}
    assert again.fits({name: tuple(value.shape) for name, value in state.items()})
    for name, value in again.state().items():
        value.copy_(state.pop(name))
    again.restore(state)
    for model, optimizer in ((ours, optimizers[0]), (restarted, again)):
        optimizer.clear()
        loss, examples = objective_of(model, negatives=8)
        loss(examples.batch(6), 6, least_history=1).backward()
        optimizer.collect(0.5)
        optimizer.step(0.02)
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in restarted.state_dict().items())


@pytest.mark.parametrize("chosen", [[0], [1, 2]])
@pytest.mark.parametrize("further", [{}, {"gate": {"name": "senet"}, "layers": 2}, {"poso": {"form": "attention"}}])
def test_every_parameter_has_a_state_to_go_on_from(chosen: list[int], further: dict[str, Any]) -> None:
    """A parameter that nothing reads would make every checkpoint one of another version."""
    found = [columns()[number] for number in chosen]
    model = model_with(found, **further)
    objective, examples = objective_of(model, negatives=8)
    optimizer = Optimizer(model, OptimizerSettings(), row_wise=False)
    objective(examples.batch(0), 0, least_history=1).backward()
    optimizer.collect(5.0)
    optimizer.step(0.01)
    assert optimizer.fits({name: tuple(value.shape) for name, value in optimizer.state().items()})


def test_rows_are_taken_over_only_where_they_mean_the_same() -> None:
    events, texts, numbers = np.ones(3, dtype=np.int64), pl.Series(["a", "b", "c"]), pl.Series([1.0, 2.0, 3.0])

    def rows(settings: Any, values: pl.Series) -> list[str]:
        return list(row_names(code_column("f", settings, values, events).coding))

    assert rows(CategoricalField(), texts) == ["f#0", "f=a", "f=b", "f=c"]
    assert rows(CategoricalField(hashed=2), texts) == ["f#0", "f#hash 1/2", "f#hash 2/2"]
    assert rows(NumericField(edges=(2.0, 3.0)), numbers) == ["f#0", "f in [-inf, 2.0)", "f in [2.0, 3.0)", "f in [3.0, inf)"]
    assert rows(NumericField(buckets=2), numbers) == rows(NumericField(buckets=2), 10 * numbers) == ["f#0", "f#1/2", "f#2/2"]
    assert not set(rows(NumericField(buckets=3), numbers)[1:]) & set(rows(NumericField(buckets=2), numbers)[1:])


def test_gates_of_a_sharded_model_are_those_of_the_weights_that_were_written(tmp_path: Path) -> None:
    written, column = model_with(), [columns()[2]]
    settings = written.settings.model_copy(update={"fields": FieldsSettings(items=("letter",))})
    whole, part = (
        build_model(settings, ITEMS, seed, held, FieldInputs(items=column, trained=TRAINED)) for seed, held in ((2, None), (3, slice(0, 5)))
    )
    save_file(whole.state_dict(), tmp_path / "model.safetensors")
    before = part.items.embedding.weight.clone()
    _take_best(part, tmp_path / "model.safetensors")
    assert torch.equal(part.items.fields.vectors.table, whole.items.fields.vectors.table)
    assert torch.equal(part.items.embedding.weight, before)


def test_the_share_that_gbce_sees_is_of_what_can_be_drawn() -> None:
    lengths = np.full(6, 8)
    sequences = SequenceDataset(np.arange(7) * 8, np.arange(48, dtype=np.int32) % 20, np.arange(48))
    for fields, n_items in ((None, int(TRAINED.sum())), ([], ITEMS)):
        objective = Objective(model_with(fields), TrainingEvents.of(sequences, lengths), LossSettings(name="gbce"), torch.float32, 1)
        assert objective._competitors(objective.source(torch.arange(4), 0), None).n_items == n_items


EVERY = torch.arange(ITEMS)
DIRECTION = torch.randn(ITEMS, WIDTH, generator=torch.Generator().manual_seed(3))


def gradients_of(model: RetrievalModel) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    made = model.items(EVERY)
    (made * DIRECTION).sum().backward()
    return made.detach(), {name: each.grad for name, each in model.items.named_parameters() if each.grad is not None}


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_tower, "_ROWS", 4)
    monkeypatch.setattr(item_tower, "_REMADE", 5)


@pytest.mark.parametrize("gate", [{"name": "none"}, {"name": "senet"}, {"name": "gatenet", "embedding": "bit-wise"}])
def test_blocks_have_the_gradients_of_the_whole(gate: dict[str, str], request: pytest.FixtureRequest) -> None:
    whole, expected = gradients_of(model_with(gate=gate))
    request.getfixturevalue("blocks")
    made, found = gradients_of(model_with(gate=gate))
    torch.testing.assert_close(made, whole)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], msg=name)


@pytest.mark.usefixtures("blocks")
def test_ids_that_were_left_out_have_no_gradient() -> None:
    """The second making draws the numbers of the first, and leaves the generator where it was."""
    model = model_with(id_dropout=0.5).train()
    assert model.items.fields is not None
    torch.manual_seed(4)
    made = model.items(EVERY)
    after = torch.get_rng_state()
    made.sum().backward()
    assert torch.equal(torch.get_rng_state(), after)
    alone = model.items.fields(torch.zeros(ITEMS, WIDTH), EVERY)
    kept = ((made - alone).abs() > 1e-6).any(dim=1)
    assert 0 < int(kept.sum()) < int(model.items.fields.trained.sum())
    gradient = model.items.embedding.weight.grad
    assert gradient is not None
    assert torch.equal(gradient, kept[:, None].expand(-1, WIDTH).to(gradient.dtype))


@pytest.mark.usefixtures("blocks")
def test_tables_read_row_by_row_learn_from_blocks() -> None:
    dense, sparse = model_with(), model_with()
    assert sparse.items.fields is not None
    lookups, ids = sparse.items.fields.vectors.read_row_wise(), sparse.items.read_row_wise()
    for model in (dense, sparse):
        (model.items(EVERY) * DIRECTION).sum().backward()
    assert dense.items.fields is not None
    for found, expected in (
        (lookups.gradients(sparse.items.fields.vectors.table), dense.items.fields.vectors.table.grad),
        (ids.gradients(sparse.items.embedding.weight), dense.items.embedding.weight.grad),
    ):
        torch.testing.assert_close(found.values, expected[found.rows])
        assert int((expected.abs().amax(dim=1) > 0).sum()) == len(found.rows)
