"""Sources report the probability of the mixture that their rows come from."""

import math

import pytest
import torch

from retrieval.sampling.negatives import SAMPLERS, Negatives, NegativeSampler
from retrieval.sampling.sources import SOURCES, Parts

COUNTS = torch.tensor([5, 0, 1, 40, 3, 3])
SHARE = COUNTS.double() / COUNTS.sum()
P, M = 200, 400


def positives(step: int) -> torch.Tensor:
    return torch.multinomial(SHARE, P, replacement=True, generator=torch.Generator().manual_seed(step))


def make(name: str, batches: int = 3):
    batch, drawn = (NegativeSampler(SAMPLERS[key](COUNTS, 1.0)) for key in ("popularity", "uniform"))
    return SOURCES[name](Parts(batch, drawn, M, 7, positives, batches))


def counts_of(negatives: Negatives) -> torch.Tensor:
    return torch.ones(len(negatives.rows)) if negatives.counts is None else negatives.counts


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_frequencies_over_many_batches_agree_with_the_reported_probability(name: str) -> None:
    source, frequency, reported = make(name), torch.zeros(len(COUNTS)), torch.zeros(len(COUNTS))
    for step in range(10, 50):
        negatives = source(positives(step), step)
        counts = counts_of(negatives)
        frequency.index_add_(0, negatives.rows, counts / counts.sum())
        reported[negatives.rows] = negatives.log_q.exp()
    torch.testing.assert_close(frequency / 40, reported, rtol=0.1, atol=4e-3)
    assert float(reported.sum()) == pytest.approx(1.0, abs=1e-5)


def test_the_mixture_is_weighed_by_what_each_part_gives() -> None:
    negatives = make("mixed")(positives(1), 1)
    expected = P / (P + M) * SHARE + M / (P + M) / len(COUNTS)
    torch.testing.assert_close(negatives.log_q.exp(), expected[negatives.rows].float())
    torch.testing.assert_close(negatives.positive_log_q.exp(), expected[positives(1)].float())


def test_a_batch_is_its_own_positives_counted() -> None:
    negatives = make("in-batch")(torch.tensor([3, 0, 3, 3]), 1)
    assert (negatives.rows.tolist(), negatives.counts.tolist()) == ([0, 3], [1.0, 3.0])
    assert negatives.positive_log_q.tolist() == pytest.approx([math.log(SHARE[row]) for row in (3, 0, 3, 3)])


@pytest.mark.parametrize(("step", "earlier"), [(0, []), (2, [0, 1]), (9, [6, 7, 8])])
def test_a_queue_holds_this_batch_and_the_last_ones(step: int, earlier: list[int]) -> None:
    negatives = make("queue")(positives(step), step)
    expected = torch.bincount(torch.cat([positives(number) for number in [step, *earlier]]), minlength=len(COUNTS))
    assert negatives.rows.tolist() == torch.nonzero(expected).flatten().tolist()
    assert negatives.counts.tolist() == expected[negatives.rows].tolist()


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_step_gives_the_same_negatives_whatever_came_before(name: str) -> None:
    used = make(name)
    for step in range(6):
        used(positives(step), step)
    for found, expected in zip(used(positives(6), 6), make(name)(positives(6), 6), strict=True):
        assert found is None or torch.equal(found, expected)


def test_a_queue_without_earlier_steps_is_an_error() -> None:
    sampler = NegativeSampler(SAMPLERS["uniform"](COUNTS, 1.0))
    with pytest.raises(ValueError, match="earlier steps"):
        SOURCES["queue"](Parts(sampler, sampler, M, 7))(positives(0), 0)
