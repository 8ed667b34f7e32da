"""Full and sampled softmax."""

import pytest
import torch

from retrieval.losses.abstract import Competitors, Examples
from retrieval.losses.readouts import Queries
from retrieval.losses.settings import LossSettings
from retrieval.losses.table import LOSSES
from retrieval.sampling.negatives import SAMPLERS, NegativeSampler

N, D, P = 12, 4, 5


def examples(seed: int = 0) -> tuple[Examples, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    items, rows = torch.randn(N, D, generator=g), torch.randint(N, (P,), generator=g)
    queries = Queries(torch.randn(P, 2, D, generator=g), torch.ones(P, 2, dtype=torch.bool))
    return Examples(queries, rows, items[rows], torch.full((P,), 1 / P)), items


def test_full_softmax_is_cross_entropy() -> None:
    batch, items = examples()
    logits = torch.einsum("pkd,nd->pkn", batch.queries.vectors, items).amax(dim=1)
    expected = torch.nn.functional.cross_entropy(logits, batch.positive_rows)
    found = LOSSES["full-softmax"](LossSettings(name="full-softmax"))(batch, Competitors(items), torch.float32)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_sampled_softmax_approaches_the_full_one_under_every_sampler(sampler: str) -> None:
    """A missing or wrong log Q leaves a gap that no number of negatives closes."""
    batch, items = examples(1)
    counts = torch.arange(1, N + 1) ** 2
    source = NegativeSampler(SAMPLERS[sampler](counts, 0.75))
    drawn = source.draw(60_000, torch.Generator().manual_seed(2))
    queries = Queries(batch.queries.vectors.clone().requires_grad_(), batch.queries.valid)
    given = Examples(queries, batch.positive_rows, batch.positives, batch.weights)
    sampled = LOSSES["sampled-softmax"](LossSettings())(
        given, Competitors(items[drawn.rows], drawn.rows, drawn.log_q, source.log_q(batch.positive_rows)), torch.float32
    )
    # M negatives outweigh the one positive M-fold, so what is approached is the partition over the other items.
    grad = torch.autograd.grad(sampled, queries.vectors)[0]
    logits = torch.einsum("pkd,nd->pkn", queries.vectors, items).amax(dim=1)
    others = logits.masked_fill(torch.arange(N) == batch.positive_rows[:, None], -torch.inf)
    reference = (torch.logsumexp(others, dim=1) - logits.gather(1, batch.positive_rows[:, None])[:, 0]).mean()
    expected = torch.autograd.grad(reference, queries.vectors)[0]
    torch.testing.assert_close(grad, expected, rtol=0.1, atol=0.02)


def test_an_accidental_hit_is_no_negative() -> None:
    batch, items = examples()
    loss = LOSSES["sampled-softmax"](LossSettings())
    row = batch.positive_rows[:1]
    queries = Queries(batch.queries.vectors[:1], batch.queries.valid[:1])
    one = Examples(queries, row, batch.positives[:1], torch.ones(1))
    hits = Competitors(items[row].expand(3, D), row.repeat(3), torch.zeros(3), torch.zeros(1))
    assert float(loss(one, hits, torch.float32)) == 0.0


def test_the_correction_cannot_be_left_out() -> None:
    batch, items = examples()
    with pytest.raises(ValueError, match="log prob"):
        LOSSES["sampled-softmax"](LossSettings())(batch, Competitors(items), torch.float32)
