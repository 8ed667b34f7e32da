"""Losses over sums, in blocks, against their formulas on whole matrices: values and gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import logsigmoid

from retrieval.losses.binary import BinaryForm
from retrieval.losses.blocked import AbstractForm, blocked_loss
from retrieval.losses.bpr_max import BPRMaxForm
from retrieval.losses.cross_entropy import Blocks, Classes, cross_entropy
from retrieval.losses.exclusions import Exclusions
from retrieval.losses.hard_negatives import HardSoftmax
from retrieval.losses.readouts import Queries, pooled_scores

D, CATALOG = 5, 12
FORMS = {"hard": HardSoftmax(0.7), "binary": BinaryForm(0.3, 9.0), "bpr-max": BPRMaxForm(0.4)}


def naive(form: AbstractForm, own: torch.Tensor, scores: torch.Tensor, log_weights: torch.Tensor) -> torch.Tensor:
    """One example, its competitors only, in plain arithmetic."""
    c, s = log_weights.exp(), scores
    if isinstance(form, BinaryForm):
        return -(form.power * logsigmoid(own) + (c * torch.log(1 - torch.sigmoid(s))).sum()) / (form.draws + 1)
    if isinstance(form, BPRMaxForm):
        m = c * s.exp() / (c * s.exp()).sum()
        return -torch.log((m * torch.sigmoid(own - s)).sum()) + form.regularization * (m * s**2).sum()
    hard = torch.exp(form.hardness * s.detach())
    w = hard / ((c * hard).sum() / c.sum())
    return -torch.log(own.exp() / (own.exp() + (c * w * s.exp()).sum()))


def whole(form: AbstractForm, queries: Queries, own: torch.Tensor, classes: Classes, weights: torch.Tensor) -> torch.Tensor:
    total = torch.zeros((), dtype=own.dtype)
    every = torch.einsum("pkd,nd->pkn", queries.vectors, classes.vectors).masked_fill(~queries.valid[:, :, None], -torch.inf)
    pooled = every.amax(dim=1) if queries.pooling == "max" else every.logsumexp(dim=1)
    for p in range(len(own)):
        kept = ~classes.excluded(slice(p, p + 1), slice(None))[0]
        if kept.any():
            total = total + weights[p] * naive(form, own[p], pooled[p][kept], classes.bias[kept])
    return total


def problem(seed: int, p: int, k: int, n: int, pooling: str, scale: float = 1.0):
    g = torch.Generator().manual_seed(seed)
    vectors, catalog = torch.randn(p, k, D, generator=g) * scale, torch.randn(CATALOG, D, generator=g)
    valid = torch.rand(p, k, generator=g) > 0.4
    valid[:, 0] = True
    rows = torch.randint(CATALOG, (n,), generator=g)
    positives = torch.randint(CATALOG, (p,), generator=g)
    positives = torch.where((positives[:, None] == rows).all(dim=1), (positives + 1) % CATALOG, positives)
    classes = Classes(catalog[rows], torch.randn(n, generator=g), Exclusions(rows, positives), contain_positives=False)
    return vectors, valid, catalog[positives], classes, torch.rand(p, generator=g)


def gradients(loss_of, vectors: torch.Tensor, valid: torch.Tensor, pooling: str, positives: torch.Tensor, items: torch.Tensor):
    leaves = [part.clone().requires_grad_() for part in (vectors, positives, items)]
    queries = Queries(leaves[0], valid, pooling)
    loss = loss_of(queries, pooled_scores(queries, leaves[1]), leaves[2])
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


@pytest.mark.parametrize("name", FORMS)
@given(
    seed=st.integers(0, 10_000),
    p=st.sampled_from([1, 5, 70]),
    k=st.integers(1, 3),
    n=st.integers(2, 15),
    pooling=st.sampled_from(["max", "log-sum-exp"]),
    elements=st.sampled_from([1, 300, 10**6]),
)
def test_values_and_gradients_equal_the_formula_whatever_the_blocks(
    name: str, seed: int, p: int, k: int, n: int, pooling: str, elements: int
) -> None:
    vectors, valid, positives, classes, weights = problem(seed, p, k, n, pooling)
    form, blocks = FORMS[name], Blocks(elements, torch.float32)
    found = gradients(
        lambda q, own, items: blocked_loss(form, q, own, classes._replace(vectors=items), weights, blocks),
        *(vectors, valid, pooling, positives, classes.vectors),
    )
    expected = gradients(
        lambda q, own, items: whole(form, q, own, classes._replace(vectors=items, bias=classes.bias.double()), weights.double()),
        *(vectors.double(), valid, pooling, positives.double(), classes.vectors.double()),
    )
    for blocked, formula in zip(found, expected, strict=True):
        torch.testing.assert_close(blocked.double(), formula, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("name", FORMS)
def test_an_example_that_nothing_competes_with_moves_nothing_but_itself(name: str) -> None:
    items, rows = torch.randn(3, D), torch.tensor([4, 4, 4])
    classes = Classes(items, torch.zeros(3), Exclusions(rows, torch.tensor([4, 1])), contain_positives=False)
    found = gradients(
        lambda q, own, i: blocked_loss(
            FORMS[name], q, own, classes._replace(vectors=i), torch.tensor([1.0, 0.0]), Blocks(10, torch.float32)
        ),
        *(torch.randn(2, 2, D), torch.ones(2, 2, dtype=torch.bool), "max", torch.randn(2, D), items),
    )
    assert all(torch.isfinite(part).all() for part in found)
    assert float(found[3].abs().max()) == 0.0
    assert name == "binary" or float(found[0]) == pytest.approx(0.0)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("scale", [1e-4, 60.0])
def test_extreme_scores_give_finite_losses_and_gradients(name: str, scale: float) -> None:
    vectors, valid, positives, classes, weights = problem(3, 40, 2, 9, "max", scale)
    found = gradients(
        lambda q, own, i: blocked_loss(FORMS[name], q, own, classes._replace(vectors=i), weights, Blocks(10**6, torch.float32)),
        *(vectors, valid, "max", positives, classes.vectors),
    )
    assert all(torch.isfinite(part).all() for part in found)


def test_bpr_max_of_a_positive_far_below_is_the_distance_and_not_the_logarithm_of_zero() -> None:
    queries = Queries(torch.tensor([[[1.0]]]), torch.ones(1, 1, dtype=torch.bool))
    own = torch.tensor([-300.0], requires_grad=True)
    classes = Classes(torch.tensor([[0.0]]), None, None, contain_positives=False)
    loss = blocked_loss(BPRMaxForm(0.0), queries, own, classes, torch.ones(1), Blocks(10, torch.float32))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(300.0)
    assert float(own.grad) == pytest.approx(-1.0)


@pytest.mark.parametrize("pooling", ["max", "log-sum-exp"])
def test_no_hardness_is_the_sampled_softmax(pooling: str) -> None:
    vectors, valid, positives, classes, weights = problem(5, 30, 3, 10, pooling)
    blocks, results = Blocks(10**6, torch.float32), []
    for loss_of in (lambda *parts: blocked_loss(HardSoftmax(0.0), *parts), cross_entropy):
        results.append(
            gradients(
                lambda q, own, i, f=loss_of: f(q, own, classes._replace(vectors=i), weights, blocks),
                *(vectors, valid, pooling, positives, classes.vectors),
            )
        )
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_hardness_moves_the_slope_to_the_best_negatives() -> None:
    queries = Queries(torch.tensor([[[1.0]]]), torch.ones(1, 1, dtype=torch.bool))
    shares = []
    for hardness in (0.0, 2.0):
        items = torch.tensor([[2.0], [0.0], [-1.0]], requires_grad=True)
        classes = Classes(items, torch.zeros(3), None, contain_positives=False)
        blocked_loss(HardSoftmax(hardness), queries, torch.zeros(1), classes, torch.ones(1), Blocks(9, torch.float32)).backward()
        shares.append(items.grad[:, 0] / items.grad.sum())
    assert float(shares[1][0]) > float(shares[0][0]) + 0.05


def test_equal_queries_count_once() -> None:
    one, positives, items = torch.randn(6, 1, D), torch.randn(6, D), torch.randn(9, D)
    results = []
    for k in (1, 3):
        classes = Classes(items, torch.zeros(9), None, contain_positives=False)
        results.append(
            gradients(
                lambda q, own, i, c=classes: blocked_loss(
                    BPRMaxForm(1.0), q, own, c._replace(vectors=i), torch.ones(6), Blocks(10**6, torch.float32)
                ),
                *(one.expand(6, k, D).contiguous(), torch.ones(6, k, dtype=torch.bool), "max", positives, items),
            )[3]
        )
    torch.testing.assert_close(results[0], results[1])


def test_gradients_are_handed_on_once_and_scaled() -> None:
    queries = Queries(torch.randn(4, 2, D, requires_grad=True), torch.ones(4, 2, dtype=torch.bool))
    classes = Classes(torch.randn(6, D), None, None, contain_positives=False)

    def loss() -> torch.Tensor:
        return blocked_loss(BPRMaxForm(1.0), queries, torch.zeros(4), classes, torch.ones(4), Blocks(10**6, torch.float32))

    single, scaled = (torch.autograd.grad(factor * loss(), queries.vectors)[0] for factor in (1.0, 3.0))
    torch.testing.assert_close(scaled, 3.0 * single)
    again = loss()
    again.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="handed on already"):
        again.backward()


def test_no_block_holds_more_scores_than_allowed() -> None:
    p, k, n = 64, 4, 1000
    queries = Queries(torch.randn(p, k, D, requires_grad=True), torch.ones(p, k, dtype=torch.bool))
    classes = Classes(torch.randn(n, D), torch.zeros(n), Exclusions(torch.arange(n), torch.arange(p)), contain_positives=False)
    with torch.profiler.profile(profile_memory=True) as profile:
        blocked_loss(HardSoftmax(1.0), queries, torch.zeros(p), classes, torch.ones(p), Blocks(16_000, torch.float32))
    assert max(event.cpu_memory_usage for event in profile.events()) < p * k * n * 4 / 4
