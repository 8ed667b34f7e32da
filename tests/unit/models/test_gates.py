"""Gates equal a loop over fields, count as the papers say, have the gradients of numbers, and begin as nothing where they can."""

import itertools
import math

import pytest
import torch
from torch import nn

from retrieval.models.fields.settings import FieldsSettings
from retrieval.models.fields.tower import GatedSum
from retrieval.models.gates.gatenet import EmbeddingGate, HiddenGate
from retrieval.models.gates.poso import PosoGate, PosoModule, build_poso
from retrieval.models.gates.senet import SENet
from retrieval.models.gates.settings import GateNetSettings, PosoSettings, SENetSettings

FIELDS, WIDTH, ROWS, KEYS = 7, 5, 4, 3
FUNCTIONS = {
    "linear": lambda x: x,
    "relu": lambda x: max(x, 0.0),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "2-sigmoid": lambda x: 2 / (1 + math.exp(-x)),
    "tanh": math.tanh,
}
SENETS = [
    SENetSettings(squeeze=squeeze, excitation=excitation, weights=weights)
    for squeeze, excitation, weights in itertools.product(
        ["mean", "max", "learned"], ["relu", "sigmoid", "2-sigmoid"], ["field-wise", "element-wise"]
    )
]
GATENETS = [
    GateNetSettings(embedding=form, shared=shared, activation=activation)
    for form, shared, activation in itertools.product(["bit-wise", "vector-wise"], [False, True], FUNCTIONS)
]
POSOS = [PosoSettings(form=form, hidden=6, experts=3, heads=2) for form in ("mlp", "attention", "mmoe")]


def stirred(module: nn.Module) -> nn.Module:
    """With weights that are not where they begin, in float64."""
    torch.manual_seed(3)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.double()


def fields() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(ROWS, FIELDS, WIDTH, dtype=torch.float64)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def matrix(linear: nn.Linear) -> list[list[float]]:
    return linear.weight.tolist()


@pytest.mark.parametrize("settings", SENETS, ids=lambda each: f"{each.squeeze}-{each.excitation}-{each.weights}")
def test_senet_is_the_loop_of_the_paper(settings: SENetSettings) -> None:
    gate, given = stirred(SENet(FIELDS, WIDTH, settings)), fields()
    result, act = gate(given).detach(), FUNCTIONS[settings.excitation]
    for row in range(ROWS):
        squeezed = []
        for field in range(FIELDS):
            numbers = given[row, field].tolist()
            learned = sum(a * b for a, b in zip(numbers, gate.squeeze.tolist(), strict=True)) if gate.squeeze is not None else 0.0
            squeezed.append({"mean": sum(numbers) / WIDTH, "max": max(numbers), "learned": learned}[settings.squeeze])
        hidden = [max(0.0, sum(w * z for w, z in zip(weights, squeezed, strict=True))) for weights in matrix(gate.reduce)]
        excited = [act(sum(w * h for w, h in zip(weights, hidden, strict=True))) for weights in matrix(gate.excite)]
        for field, number in itertools.product(range(FIELDS), range(WIDTH)):
            weight = excited[field * WIDTH + number] if settings.weights == "element-wise" else excited[field]
            assert float(result[row, field, number]) == pytest.approx(weight * float(given[row, field, number]))


@pytest.mark.parametrize("settings", GATENETS, ids=lambda each: f"{each.embedding}-{each.shared}-{each.activation}")
def test_gatenet_is_the_loop_of_the_paper(settings: GateNetSettings) -> None:
    gate, given = stirred(EmbeddingGate(FIELDS, WIDTH, settings)), fields()
    result, act = gate(given).detach(), FUNCTIONS[settings.activation]
    for row, field in itertools.product(range(ROWS), range(FIELDS)):
        weights = gate.matrices[0 if settings.shared else field].tolist()
        numbers = given[row, field].tolist()
        gates = [act(sum(numbers[d] * weights[d][w] for d in range(WIDTH))) for w in range(len(weights[0]))]
        for number in range(WIDTH):
            assert float(result[row, field, number]) == pytest.approx(gates[number % len(gates)] * numbers[number])


def test_the_hidden_gate_is_its_formula() -> None:
    gate = stirred(HiddenGate(6, "tanh"))
    hidden = torch.randn(3, 6, dtype=torch.float64)
    torch.testing.assert_close(gate(hidden), hidden * torch.tanh(hidden @ gate.matrix.weight.T))


def test_numbers_are_those_of_the_papers() -> None:
    reduced = FIELDS // 3
    assert count(SENet(FIELDS, WIDTH, SENetSettings())) == 2 * FIELDS * reduced
    assert count(SENet(FIELDS, WIDTH, SENetSettings(reduction=100))) == 2 * FIELDS
    assert count(SENet(FIELDS, WIDTH, SENetSettings(weights="element-wise"))) == FIELDS * reduced * (1 + WIDTH)
    assert count(SENet(FIELDS, WIDTH, SENetSettings(squeeze="learned"))) == 2 * FIELDS * reduced + WIDTH
    for form, each in (("vector-wise", WIDTH), ("bit-wise", WIDTH * WIDTH)):
        assert count(EmbeddingGate(FIELDS, WIDTH, GateNetSettings(embedding=form))) == FIELDS * each
        assert count(EmbeddingGate(FIELDS, WIDTH, GateNetSettings(embedding=form, shared=True))) == each
    assert count(HiddenGate(6, "sigmoid")) == 36
    assert count(PosoGate(KEYS, 6, 4)) == KEYS * 6 + 6 + 6 * 4 + 4


@pytest.mark.parametrize("settings", [*SENETS[::3], *GATENETS[::4], GATENETS[-1]])
def test_gradients_are_those_of_differences(settings: SENetSettings | GateNetSettings) -> None:
    build = SENet if isinstance(settings, SENetSettings) else EmbeddingGate
    gate = stirred(build(FIELDS, WIDTH, settings))
    names, values = zip(*gate.named_parameters(), strict=True)

    def call(given: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(gate, dict(zip(names, weights, strict=True)), (given,))

    assert torch.autograd.gradcheck(call, (fields().requires_grad_(), *values))


@pytest.mark.parametrize(
    "settings",
    [
        SENetSettings(),
        SENetSettings(weights="element-wise", squeeze="max"),
        GateNetSettings(),
        GateNetSettings(embedding="vector-wise", shared=True),
    ],
)
def test_two_sigmoids_let_everything_through_at_first(settings: SENetSettings | GateNetSettings) -> None:
    given = fields().float()
    build = SENet if isinstance(settings, SENetSettings) else EmbeddingGate
    assert torch.equal(build(FIELDS, WIDTH, settings)(given), given)
    chosen = FieldsSettings(items=tuple("abcdefg"), gate=settings, layers=2)
    torch.testing.assert_close(GatedSum(FIELDS, WIDTH, chosen)(given), given.sum(dim=1))


def test_hidden_gates_stand_between_the_layers() -> None:
    gate = GateNetSettings(embedding="none", hidden=True)
    tower = GatedSum(FIELDS, WIDTH, FieldsSettings(items=("any",), gate=gate, layers=3))
    assert tower.layers is not None
    assert sum(isinstance(each, HiddenGate) for each in tower.layers) == 2
    plain = GatedSum(FIELDS, WIDTH, FieldsSettings(items=("any",), layers=3))
    assert count(tower) == count(plain) + 2 * WIDTH * WIDTH


def module_of(settings: PosoSettings, width: int = 4) -> PosoModule:
    module = build_poso(settings, width, KEYS)
    assert module is not None
    return module


def poso_inputs(width: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    valid = torch.tensor([[True, True, True], [True, False, True]])
    return torch.randn(2, 3, width, dtype=torch.float64), valid, torch.randn(2, KEYS, dtype=torch.float64)


def gate_of(gate: PosoGate, keys: torch.Tensor) -> torch.Tensor:
    hidden = torch.relu(gate.hidden.weight @ keys + gate.hidden.bias)
    return 2 / (1 + torch.exp(-(gate.outputs.weight @ hidden + gate.outputs.bias)))


def naive_personal(module, settings: PosoSettings, vectors: torch.Tensor, valid: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """What the module makes of the interests of one user, one after the other."""
    if settings.form == "mlp":
        return torch.stack([gate_of(module.gate, keys) * torch.relu(module.layer(each)) for each in vectors])
    if settings.form == "mmoe":
        gates, made = gate_of(module.gate, keys), []
        for each in vectors:
            shares = torch.softmax(module.mixture(each), dim=0)
            experts = module.experts(each).view(settings.experts, -1)
            made.append(sum(shares[e] * gates[e] * torch.relu(experts[e]) for e in range(settings.experts)))
        return torch.stack(made)
    width = vectors.shape[1]
    value_gates = gate_of(module.value_gate, keys).view(settings.experts, width)
    matrices = module.values.weight.view(settings.experts, width, width)
    queries = [module.queries.weight @ each for each in vectors]
    own_keys = [gate_of(module.key_gate, keys) * (module.keys.weight @ each) for each in vectors]
    values = [sum(value_gates[e] * (matrices[e] @ each) for e in range(settings.experts)) for each in vectors]
    made = []
    size = width // settings.heads
    for query in queries:
        parts = []
        for head in range(settings.heads):
            part = slice(head * size, (head + 1) * size)
            logits = torch.stack([query[part] @ key[part] / size**0.5 for key in own_keys]).masked_fill(~valid, -torch.inf)
            shares = torch.softmax(logits, dim=0)
            parts.append(sum(share * value[part] for share, value in zip(shares, values, strict=True)))
        made.append(torch.cat(parts))
    return torch.stack(made)


@pytest.mark.parametrize("settings", POSOS, ids=lambda each: each.form)
def test_poso_is_a_residual_of_the_papers_modules_over_interests(settings: PosoSettings) -> None:
    module = stirred(module_of(settings))
    vectors, valid, keys = poso_inputs()
    given = module(vectors, valid, keys)
    for row in range(len(vectors)):
        expected = vectors[row] + naive_personal(module, settings, vectors[row], valid[row], keys[row]) @ module.outputs.weight.T
        torch.testing.assert_close(given[row][valid[row]], expected[valid[row]])


@pytest.mark.parametrize("settings", POSOS, ids=lambda each: each.form)
def test_poso_begins_as_nothing_and_its_gates_at_one(settings: PosoSettings) -> None:
    module = module_of(settings).double()
    vectors, valid, keys = poso_inputs()
    assert torch.equal(module(vectors, valid, keys), vectors)
    assert torch.equal(module.gates(keys), torch.ones_like(module.gates(keys)))
    nothing = torch.zeros_like(valid)
    assert torch.isfinite(stirred(module)(vectors, nothing, keys)).all()


@pytest.mark.parametrize("settings", POSOS, ids=lambda each: each.form)
def test_gradients_of_poso_are_those_of_differences(settings: PosoSettings) -> None:
    module = stirred(module_of(settings))
    vectors, valid, keys = poso_inputs()
    assert torch.autograd.gradcheck(lambda x, pc: module(x, valid, pc), (vectors.requires_grad_(), keys.requires_grad_()))


def test_poso_counts_as_its_parts() -> None:
    mlp, attention, mmoe = (module_of(settings) for settings in POSOS)
    width, hidden, experts = 4, 6, 3
    assert count(mlp) == (width * hidden + hidden) + hidden * width + (KEYS * hidden + hidden + hidden * hidden + hidden)
    gates = 2 * (KEYS * hidden + hidden) + (hidden + 1) * (width + experts * width)
    assert count(attention) == (3 + experts) * width * width + gates
    gate = KEYS * hidden + hidden + hidden * experts + experts
    assert count(mmoe) == experts * (width + 1) * hidden + (width + 1) * experts + hidden * width + gate


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"items": ["a", "b", "a"]}, "items names 'a' twice"),
        ({"poso": {"keys": ["activity", "activity"]}}, "poso.keys names 'activity' twice"),
        ({"gate": {"name": "senet"}}, "needs fields to stand over"),
        ({"layers": 2}, "layers = 2 need fields to read"),
        ({"items": ["a"], "layers": 1, "gate": {"name": "gatenet", "hidden": True}}, "layers = 1 has no place for it"),
        ({"items": ["a"], "gate": {"name": "gatenet", "embedding": "none"}}, "gates nothing"),
        ({"users": ["a"], "id_dropout": 0.1}, "id_dropout needs items"),
        ({"items": ["a"], "history_dropout": 0.1}, "history_dropout needs users"),
    ],
)
def test_settings_that_nothing_would_read_are_refused(changes: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FieldsSettings.model_validate(changes)
