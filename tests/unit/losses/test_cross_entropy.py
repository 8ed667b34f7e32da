"""The blocked cross-entropy against the formula on whole matrices, values and gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retrieval.losses.cross_entropy import Blocks, Classes, cross_entropy
from retrieval.losses.exclusions import Exclusions
from retrieval.losses.readouts import READOUTS, Queries, pooled_scores, scores_of

EXACT = torch.float32


def naive(queries: Queries, own: torch.Tensor, classes: Classes, weights: torch.Tensor) -> torch.Tensor:
    scores = torch.einsum("pkd,nd->pkn", *(queries.vectors, classes.vectors))
    scores = scores.masked_fill(~queries.valid[:, :, None], -torch.inf)
    best = scores.amax(dim=1) if queries.pooling == "max" else scores.logsumexp(dim=1)
    if classes.bias is not None:
        best = best + classes.bias
    if classes.excluded is not None:
        best = best.masked_fill(classes.excluded(slice(None), slice(None)), -torch.inf)
    if not classes.contain_positives:
        best = torch.cat([best, own[:, None]], dim=1)
    return ((torch.logsumexp(best, dim=1) - own) * weights).sum()


def problem(seed: int, p: int, k: int, n: int, *, full: bool, masked: bool):
    g = torch.Generator().manual_seed(seed)
    d = 5
    vectors, items = torch.randn(p, k, d, generator=g), torch.randn(n, d, generator=g)
    valid = torch.rand(p, k, generator=g) > 0.4
    valid[:, 0] = True
    rows = torch.randint(n, (p,), generator=g)
    excluded = Exclusions(torch.arange(n), rows) if masked else None
    bias = torch.randn(n, generator=g) if not full else None
    weights = torch.rand(p, generator=g)
    return vectors, valid, items, rows, Classes(items, bias, excluded, full), weights


@given(
    seed=st.integers(0, 10_000),
    p=st.integers(1, 150),
    k=st.integers(1, 4),
    n=st.integers(2, 40),
    full=st.booleans(),
    elements=st.sampled_from([1, 300, 10**6]),
    pooling=st.sampled_from(["max", "log-sum-exp"]),
)
def test_values_and_gradients_equal_the_formula_whatever_the_blocks(
    seed: int, p: int, k: int, n: int, full: bool, elements: int, pooling: str
) -> None:
    vectors, valid, items, rows, classes, weights = problem(seed, p, k, n, full=full, masked=not full)
    results = []
    for compute in (lambda q, o, c: cross_entropy(q, o, c, weights, Blocks(elements, EXACT)), lambda q, o, c: naive(q, o, c, weights)):
        v, i = vectors.clone().requires_grad_(), items.clone().requires_grad_()
        queries = Queries(v, valid, pooling)
        loss = compute(queries, pooled_scores(queries, i[rows]), classes._replace(vectors=i))
        results.append((loss.detach(), *torch.autograd.grad(loss, (v, i))))
    for blocked, whole in zip(*results, strict=True):
        torch.testing.assert_close(blocked, whole, rtol=2e-4, atol=2e-4)


def test_equal_interests_count_once() -> None:
    """Collapsed interests tie on every item; the item must not get their gradient twice."""
    one, items = torch.randn(6, 1, 5), torch.randn(9, 5)
    gradients = []
    for k in (1, 3):
        i = items.clone().requires_grad_()
        queries = Queries(one.expand(6, k, 5).contiguous(), torch.ones(6, k, dtype=torch.bool))
        own = scores_of(queries, i[:6]).amax(dim=1)
        loss = cross_entropy(queries, own.detach(), Classes(i, None, None, contain_positives=True), torch.ones(6), Blocks(10**6, EXACT))
        gradients.append(torch.autograd.grad(loss, i)[0])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_bfloat16_products_stay_near_float32() -> None:
    vectors, valid, _, rows, classes, weights = problem(1, 200, 4, 500, full=True, masked=False)
    queries = Queries(vectors, valid)
    own = scores_of(queries, classes.vectors[rows]).amax(dim=1)
    values = [cross_entropy(queries, own, classes, weights, Blocks(10**6, dtype)) for dtype in (torch.float32, torch.bfloat16)]
    torch.testing.assert_close(values[0], values[1], rtol=5e-3, atol=0)


def test_no_block_holds_more_scores_than_allowed() -> None:
    vectors, valid, _, rows, classes, weights = problem(2, 64, 4, 3000, full=True, masked=False)
    queries = Queries(vectors.requires_grad_(), valid)
    own = scores_of(queries, classes.vectors[rows]).amax(dim=1)
    with torch.profiler.profile(profile_memory=True) as profile:
        cross_entropy(queries, own, classes, weights, Blocks(32_000, EXACT))
    assert max(event.cpu_memory_usage for event in profile.events()) < 64 * 4 * 3000 * 4 / 4


def test_hard_readout_is_the_interest_of_the_positive_for_everything() -> None:
    queries = Queries(torch.tensor([[[1.0, 0.0], [0.0, 2.0]]]), torch.ones(1, 2, dtype=torch.bool))
    chosen = READOUTS["hard"](queries, torch.tensor([[0.9, 0.5]]), 1.0)
    assert chosen.vectors.tolist() == [[[0.0, 2.0]]]


def test_hard_readout_never_takes_an_invalid_interest() -> None:
    queries = Queries(torch.tensor([[[-1.0, 0.0], [0.0, 2.0]]]), torch.tensor([[True, False]]))
    assert READOUTS["hard"](queries, torch.tensor([[0.9, 0.5]]), 1.0).vectors.tolist() == [[[-1.0, 0.0]]]


@pytest.mark.parametrize(("power", "expected"), [(0.0, [0.5, 1.0]), (1e4, [0.0, 2.0])])
def test_label_aware_readout_goes_from_the_mean_to_the_hard_one(power: float, expected: list[float]) -> None:
    queries = Queries(torch.tensor([[[1.0, 0.0], [0.0, 2.0]]]), torch.ones(1, 2, dtype=torch.bool))
    mixed = READOUTS["label-aware"](queries, torch.tensor([[0.9, 0.5]]), power)
    torch.testing.assert_close(mixed.vectors[0, 0], torch.tensor(expected))


def test_label_aware_readout_is_finite_where_scores_are_negative() -> None:
    queries = Queries(-torch.ones(1, 2, 3), torch.ones(1, 2, dtype=torch.bool))
    assert torch.isfinite(READOUTS["label-aware"](queries, torch.ones(1, 3), 2.5).vectors).all()


def test_max_readout_scores_an_item_by_its_own_best_interest() -> None:
    queries = Queries(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.ones(1, 2, dtype=torch.bool))
    items = torch.tensor([[3.0, 0.0], [0.0, 5.0]])
    loss = cross_entropy(
        queries, torch.tensor([3.0]), Classes(items, None, None, contain_positives=True), torch.ones(1), Blocks(100, EXACT)
    )
    torch.testing.assert_close(loss, torch.logsumexp(torch.tensor([3.0, 5.0]), 0) - 3.0)


def test_sampled_readout_draws_by_the_share_of_the_positive_and_never_an_invalid_interest() -> None:
    torch.manual_seed(0)
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]]).expand(4000, 3, 2)
    queries = Queries(vectors, torch.tensor([True, True, False]).expand(4000, 3))
    drawn = READOUTS["sampled"](queries, torch.tensor([[1.0, 0.0]]).expand(4000, 2), 1.0).vectors[:, 0]
    first = float((drawn == torch.tensor([1.0, 0.0])).all(dim=1).float().mean())
    assert first == pytest.approx(1 / (1 + 2.718281828**-1), abs=0.03)
    assert not bool((drawn == 5.0).any())
