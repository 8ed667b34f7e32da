"""The map of vectors: the same every time, near what is near; and what is said of neighbours agrees with looking at each pair."""

import numpy as np
import pytest

from retrieval.evaluation import projection
from retrieval.evaluation.projection import perplexity_of, same_category_share, tsne


@pytest.fixture
def groups() -> tuple[np.ndarray, np.ndarray]:
    """Forty vectors in four groups of ten, of 60 dimensions, so that principal components come first."""
    random = np.random.default_rng(5)
    centres = random.normal(size=(4, 60))
    codes = np.repeat(np.arange(4, dtype=np.int32), 10)
    lengths = random.uniform(0.1, 9.0, size=(40, 1))
    return (lengths * (centres[codes] + 0.1 * random.normal(size=(40, 60)))).astype(np.float32), codes


def test_groups_stay_together_and_the_picture_is_the_same_again(groups: tuple[np.ndarray, np.ndarray]) -> None:
    vectors, codes = groups
    places = tsne(vectors, 3, threads=1)
    assert places.shape == (40, 2)
    assert np.isfinite(places).all()
    gaps = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(gaps, np.inf)
    assert (codes[gaps.argmin(axis=1)] == codes).mean() > 0.9
    assert np.array_equal(tsne(vectors, 3, threads=1), places)


def test_neighbours_agree_with_every_pair_looked_at(groups: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, codes = groups
    mixed = np.where(np.arange(40) % 3 == 0, (codes + 1) % 4, codes).astype(np.int32)
    mixed[7] = -1
    expected = []
    for row in range(40):
        cosine = vectors @ vectors[row] / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(vectors[row]))
        nearest = sorted((other for other in range(40) if other != row), key=lambda other: -cosine[other])[:10]
        expected.append(np.mean(mixed[nearest] == mixed[row]))
    found = same_category_share(vectors, mixed)
    assert np.isnan(found[7])
    known = np.arange(40) != 7
    assert found[known] == pytest.approx(np.array(expected)[known])
    monkeypatch.setattr(projection, "_BLOCK", 7)
    assert np.array_equal(same_category_share(vectors, mixed), found, equal_nan=True)


def test_few_vectors_have_a_smaller_perplexity() -> None:
    assert perplexity_of(1000) == 30.0
    assert perplexity_of(10) == pytest.approx(9 / 3.5)
