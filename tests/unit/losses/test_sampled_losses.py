"""What each sampled loss of the table computes, by its formula, and what it estimates."""

import pytest
import torch
from pydantic import ValidationError
from torch.nn.functional import binary_cross_entropy_with_logits

from retrieval.losses.abstract import Competitors, Examples
from retrieval.losses.exclusions import KnownItems
from retrieval.losses.readouts import Queries
from retrieval.losses.settings import LossSettings
from retrieval.losses.table import LOSSES
from retrieval.sampling.negatives import SAMPLERS, NegativeSampler

N, D, P, K = 12, 4, 5, 2
SAMPLED = sorted(set(LOSSES) - {"full-softmax"})
COUNTS = torch.arange(1, N + 1) ** 2


def world(seed: int = 1) -> tuple[Examples, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    items, rows = torch.randn(N, D, generator=g), torch.randint(N, (P,), generator=g)
    queries = Queries(torch.randn(P, K, D, generator=g).requires_grad_(), torch.ones(P, K, dtype=torch.bool))
    return Examples(queries, rows, items[rows], torch.full((P,), 1 / P)), items


def drawn(items: torch.Tensor, examples: Examples, count: int, sampler: str = "popularity") -> Competitors:
    source = NegativeSampler(SAMPLERS[sampler](COUNTS, 0.75))
    negatives = source.draw(count, torch.Generator().manual_seed(2))
    return Competitors(items[negatives.rows], negatives.rows, negatives.log_q, source.log_q(examples.positive_rows), n_items=N)


def value_and_gradient(examples: Examples, competitors: Competitors, **settings) -> tuple[float, torch.Tensor]:
    made = LossSettings(**settings)
    loss = LOSSES[made.name](made)(examples, competitors, torch.float32)
    return float(loss.detach()), torch.autograd.grad(loss, examples.queries.vectors)[0]


def logits(examples: Examples, items: torch.Tensor) -> torch.Tensor:
    return torch.einsum("pkd,nd->pkn", examples.queries.vectors, items).amax(dim=1)


def own_scores(examples: Examples) -> torch.Tensor:
    return torch.einsum("pkd,pd->pk", examples.queries.vectors, examples.positives).amax(dim=1)


def test_corrected_logq_has_the_gradient_of_the_papers_formula() -> None:
    """sg(1 - p) * (-s+ + LSE_j(s_j - log Q'_j)), Q'_j = Q_j / (1 - Q+), hits rejected."""
    examples, items = world()
    competitors = drawn(items, examples, 40)
    own, scores = own_scores(examples), logits(examples, competitors.vectors)
    hits = competitors.rows == examples.positive_rows[:, None]
    log_q = competitors.log_q - torch.log1p(-competitors.positive_log_q.exp())[:, None]
    lse = (scores - log_q).masked_fill(hits, -torch.inf).logsumexp(dim=1)
    p = torch.sigmoid(own - (lse - (~hits).sum(dim=1).log())).detach()
    expected = torch.autograd.grad(((1 - p) * (lse - own)).mean(), examples.queries.vectors)[0]
    value, found = value_and_gradient(examples, competitors, name="corrected-logq")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert value == pytest.approx(float(-p.log().mean().detach()), rel=1e-4)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_corrected_logq_estimates_the_full_softmax_under_every_sampler(sampler: str) -> None:
    """Value and gradient; the usual correction does so only up to the weight of the positive."""
    examples, items = world()
    value, found = value_and_gradient(examples, drawn(items, examples, 60_000, sampler), name="corrected-logq")
    full, expected = value_and_gradient(examples, Competitors(items), name="full-softmax")
    assert value == pytest.approx(full, rel=0.02)
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0.01)


@pytest.mark.parametrize("name", ["sampled-softmax", "corrected-logq"])
def test_hard_negatives_estimate_the_same_whatever_the_sampler(name: str) -> None:
    """Weights normalised over the sampler's distribution instead of the catalog would move with the sampler."""
    examples, items = world()
    if name == "sampled-softmax":  # its positive is corrected by the sampler's Q, so only the negatives' direction agrees
        examples = Examples(examples.queries, examples.positive_rows, examples.positives * 0 - 50.0, examples.weights)
    gradients = []
    for sampler in ("uniform", "popularity"):
        competitors = drawn(items, examples, 60_000, sampler)
        gradients.append(value_and_gradient(examples, competitors, name=name, hardness=1.0)[1])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0.15, atol=0.02)


def test_hard_negatives_with_uniform_draws_are_the_papers_form() -> None:
    """sum of imp * e^s / mean(imp), imp = e^(beta s), against the positive; here the weights are constants."""
    examples, items = world()
    competitors = drawn(items, examples, 30, "uniform")
    own, scores = own_scores(examples), logits(examples, competitors.vectors)
    kept = (competitors.rows != examples.positive_rows[:, None]).float()
    importance = torch.exp(0.8 * scores.detach())
    mean = (importance * kept).sum(dim=1) / kept.sum(dim=1)
    negative = (kept * importance * scores.exp()).sum(dim=1) / mean
    loss = -torch.log(own.exp() / (own.exp() + negative)).mean()
    value, found = value_and_gradient(examples, competitors, name="sampled-softmax", hardness=0.8)
    assert value == pytest.approx(float(loss.detach()), rel=1e-4)
    torch.testing.assert_close(found, torch.autograd.grad(loss, examples.queries.vectors)[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "calibration"), [("bce", 0.75), ("gbce", 0.0), ("gbce", 0.75), ("gbce", 1.0)])
def test_binary_cross_entropies(name: str, calibration: float) -> None:
    """beta = a (t (1 - 1/a) + 1/a), a = M / (N - 1); the positive's probability to the power beta."""
    examples, items = world()
    m = 6
    rows = torch.stack([(examples.positive_rows + 1 + j) % N for j in range(m)])[:, 0]  # none of them the first positive
    one = Examples(
        Queries(examples.queries.vectors[:1].detach().requires_grad_(), examples.queries.valid[:1]),
        examples.positive_rows[:1],
        examples.positives[:1],
        torch.ones(1),
    )
    own, scores = own_scores(one), logits(one, items[rows])[0]
    a = m / (N - 1)
    beta = 1.0 if name == "bce" else a * (calibration * (1 - 1 / a) + 1 / a)
    power = torch.sigmoid(own.double()) ** beta
    negatives = binary_cross_entropy_with_logits(scores.double(), torch.zeros(m, dtype=torch.float64), reduction="sum")
    expected = (-torch.log(power).sum() + negatives) / (m + 1)
    value, found = value_and_gradient(one, Competitors(items[rows], rows, n_items=N), name=name, calibration=calibration)
    assert value == pytest.approx(float(expected.detach()), rel=1e-5)
    torch.testing.assert_close(found, torch.autograd.grad(expected, one.queries.vectors)[0], rtol=1e-4, atol=1e-6)


def test_gbce_does_not_lose_a_positive_that_is_certain() -> None:
    """Raising a probability that rounds to one, or to zero, to a power would give a loss of 0 or infinity."""
    queries = Queries(torch.tensor([[[1.0]], [[1.0]]], requires_grad=True), torch.ones(2, 1, dtype=torch.bool))
    examples = Examples(queries, torch.tensor([0, 1]), torch.tensor([[90.0], [-90.0]]), torch.ones(2))
    value, gradient = value_and_gradient(examples, Competitors(torch.zeros(1, 1), torch.tensor([2]), n_items=11), name="gbce")
    assert value == pytest.approx((0.325 * 90 + 2 * 0.6931) / 2, rel=1e-3)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", SAMPLED)
def test_equal_draws_counted_are_equal_draws_repeated(name: str) -> None:
    examples, items = world()
    repeated = drawn(items, examples, 50)
    rows, first, counts = torch.unique(repeated.rows, return_inverse=True, return_counts=True)
    log_q = torch.zeros(len(rows)).scatter_(0, first, repeated.log_q)
    counted = Competitors(items[rows], rows, log_q, repeated.positive_log_q, counts=counts.float(), n_items=N)
    results = [value_and_gradient(examples, competitors, name=name) for competitors in (repeated, counted)]
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-4)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", SAMPLED)
@pytest.mark.parametrize("known", [False, True])
def test_what_is_excluded_gets_no_gradient(name: str, known: bool) -> None:
    examples, items = world()
    competitors = drawn(items, examples, 40)
    windows = (
        KnownItems(torch.tensor([[0, 1], [2, -1]]), torch.tensor([0, 0, 1, 1, 1]), torch.ones(5, dtype=torch.int64)) if known else None
    )
    vectors = competitors.vectors.clone().requires_grad_()
    one_hot = torch.tensor([1.0, 0, 0, 0, 0])
    weighted = Examples(examples.queries, examples.positive_rows, examples.positives, one_hot)
    loss = LOSSES[name](LossSettings(name=name))(
        weighted, Competitors(vectors, competitors.rows, competitors.log_q, competitors.positive_log_q, windows, n_items=N), torch.float32
    )
    moved = torch.autograd.grad(loss, vectors)[0].abs().sum(dim=1) > 0
    excluded = {int(examples.positive_rows[0])} | ({0, 1} if known else set())
    assert set(competitors.rows[moved].tolist()) == set(competitors.rows.tolist()) - excluded


@pytest.mark.parametrize("name", SAMPLED)
@pytest.mark.parametrize("readout", ["max", "log-sum-exp", "hard", "label-aware"])
def test_bfloat16_products_stay_near_float32(name: str, readout: str) -> None:
    examples, items = world(3)
    competitors = drawn(items, examples, 64)
    loss = LOSSES[name](LossSettings(name=name, readout=readout))
    values = [loss(examples, competitors, dtype).detach() for dtype in (torch.float32, torch.bfloat16)]
    torch.testing.assert_close(values[0], values[1], rtol=2e-2, atol=1e-2)


@pytest.mark.parametrize("name", ["bce", "gbce", "bpr-max", "full-softmax"])
def test_hardness_that_nothing_would_read_is_an_error(name: str) -> None:
    with pytest.raises(ValidationError, match="hardness"):
        LossSettings(name=name, hardness=1.0)


def test_a_source_that_nothing_would_read_is_an_error() -> None:
    with pytest.raises(ValidationError, match="whole catalog"):
        LossSettings(name="full-softmax", source="in-batch")
