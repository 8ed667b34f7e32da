"""Penalties against loops, and that masked parts have no say."""

import pytest
import torch

from retrieval.losses.regularisation import orthogonality, routing_variance


def test_orthogonality_is_the_mean_squared_cosine_of_valid_pairs() -> None:
    vectors = torch.randn(5, 4, 6)
    valid = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 1, 1], [0, 1, 0, 1]], dtype=torch.bool)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.25, 0.15])
    expected = 0.0
    for example in range(5):
        chosen = [k for k in range(4) if valid[example, k]]
        pairs = [(a, b) for a in chosen for b in chosen if a != b]
        cosines = [torch.cosine_similarity(vectors[example, a], vectors[example, b], dim=0) ** 2 for a, b in pairs]
        expected += float(weights[example]) * float(sum(cosines)) / max(1, len(pairs))
    assert float(orthogonality(vectors, valid, weights)) == pytest.approx(expected, rel=1e-5)


def test_routing_variance_is_taken_over_valid_positions_alone() -> None:
    routing, lengths = torch.rand(3, 2, 5), [5, 3, 1]
    valid = torch.arange(5) < torch.tensor(lengths)[:, None]
    weights = torch.tensor([0.5, 0.3, 0.2])
    variance = [[torch.var(routing[b, k, :length], correction=0) for k in range(2)] for b, length in enumerate(lengths)]
    expected = sum(float(w) * sum(float(v) ** 2 for v in row) for w, row in zip(weights, variance, strict=True))
    assert float(routing_variance(routing, valid, weights)) == pytest.approx(expected, rel=1e-5)
    dirty = torch.where(valid[:, None, :], routing, 9.0)
    assert torch.equal(routing_variance(dirty, valid, weights), routing_variance(routing, valid, weights))


def test_both_pull_in_the_right_direction() -> None:
    vectors = (torch.ones(1, 2, 3) + 0.1 * torch.randn(1, 2, 3)).requires_grad_()
    orthogonality(vectors, torch.ones(1, 2, dtype=torch.bool), torch.ones(1)).backward()
    moved = vectors.detach() - 0.5 * vectors.grad
    assert torch.cosine_similarity(moved[0, 0], moved[0, 1], dim=0) < torch.cosine_similarity(vectors[0, 0], vectors[0, 1], dim=0)
