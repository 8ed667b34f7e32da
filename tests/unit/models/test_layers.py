"""Dropout drawn by the byte."""

import pytest
import torch

from retrieval.models.layers import dropout


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_dropout_silences_its_share_and_keeps_the_mean(probability: float) -> None:
    torch.manual_seed(0)
    dropped = dropout(torch.ones(200, 333), probability, True)
    share = float((dropped == 0).float().mean())
    assert abs(share - probability) < 0.01
    assert abs(float(dropped.mean()) - 1.0) < 0.02
    columns = (dropped == 0).float().mean(dim=0)  # every byte of a draw is as random as the others
    assert float((columns - share).abs().max()) < 0.2


def test_dropout_does_nothing_in_serving_and_repeats_with_the_seed() -> None:
    vectors = torch.randn(7, 5)
    assert dropout(vectors, 0.5, False) is vectors
    torch.manual_seed(3)
    first = dropout(vectors, 0.5, True)
    torch.manual_seed(3)
    assert torch.equal(first, dropout(vectors, 0.5, True))


def test_the_gradient_passes_where_the_value_does() -> None:
    vectors = torch.ones(64, requires_grad=True)
    dropped = dropout(vectors, 0.5, True)
    dropped.sum().backward()
    assert torch.equal(vectors.grad, dropped.detach())
