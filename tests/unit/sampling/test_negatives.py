"""Samplers draw from the distribution whose logarithm they report."""

import math

import pytest
import torch

from retrieval.core.errors import UsageError
from retrieval.sampling.negatives import SAMPLERS, NegativeSampler

COUNTS = torch.tensor([5, 0, 1, 40, 3, 3])


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_frequencies_agree_with_the_reported_probability(name: str) -> None:
    sampler = NegativeSampler(SAMPLERS[name](COUNTS, 0.75))
    drawn = sampler.draw(400_000, torch.Generator().manual_seed(1))
    frequency = torch.bincount(drawn.rows, minlength=len(COUNTS)) / len(drawn.rows)
    torch.testing.assert_close(frequency, sampler.log_q(torch.arange(len(COUNTS))).exp(), rtol=0.03, atol=2e-3)
    assert torch.equal(drawn.log_q, sampler.log_q(drawn.rows))


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_probabilities_sum_to_one(name: str) -> None:
    assert float(SAMPLERS[name](COUNTS, 0.75).sum()) == pytest.approx(1.0, abs=1e-9)


def test_log_uniform_goes_by_rank_not_by_row() -> None:
    probabilities = SAMPLERS["log-uniform"](COUNTS, 1.0)
    assert float(probabilities[3]) == pytest.approx(math.log(2) / math.log(7))
    assert float(probabilities[1]) == pytest.approx(math.log(7 / 6) / math.log(7))


def test_an_item_without_events_is_never_drawn_by_popularity() -> None:
    drawn = NegativeSampler(SAMPLERS["popularity"](COUNTS, 1.0)).draw(20_000, torch.Generator().manual_seed(1))
    assert 1 not in drawn.rows


def test_the_same_seed_draws_the_same_rows() -> None:
    sampler = NegativeSampler(SAMPLERS["uniform"](COUNTS, 0.75))
    first, second = (sampler.draw(50, torch.Generator().manual_seed(9)).rows for _ in range(2))
    assert torch.equal(first, second)


def test_an_unknown_sampler_is_named_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match="did you mean 'popularity'"):
        SAMPLERS["populariti"]
