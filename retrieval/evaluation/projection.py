"""Vectors in two dimensions, to be looked at, and what can be said of the same vectors in figures."""

import numpy as np
import numpy.typing as npt

from retrieval.core.resources import available_threads

FEWEST = 8
"""Vectors: fewer make no picture."""
_DIMENSIONS, _PERPLEXITY, _STEPS = 50, 30.0, 500
_NEIGHBOURS, _BLOCK = 10, 1024
Floats = npt.NDArray[np.floating]


def perplexity_of(count: int) -> float:
    """30, or less than a third of the vectors where there are few."""
    return min(_PERPLEXITY, (count - 1) / 3.5)


def tsne(vectors: Floats, seed: int, threads: int = 0) -> npt.NDArray[np.float64]:
    """float64 [M,2]: t-SNE (van der Maaten and Hinton, 2008; Barnes-Hut by scikit-learn) of vectors [M,D], D >= 2, M >= 8.

    Vectors are brought to length 1, because cosine decides here, then to 50 principal components. The same vectors and
    seed give the same places on a machine. A zero vector stays zero.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    unit = unit_rows(vectors)
    if unit.shape[1] > _DIMENSIONS:
        unit = PCA(min(_DIMENSIONS, len(unit)), svd_solver="full").fit_transform(unit)
    made = TSNE(
        perplexity=perplexity_of(len(unit)), init="pca", max_iter=_STEPS, random_state=seed % 2**32, n_jobs=threads or available_threads()
    )
    places: npt.NDArray[np.float64] = made.fit_transform(unit).astype(np.float64)
    return places


def same_category_share(vectors: Floats, categories: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    """float64 [M]: share of the 10 nearest other vectors (cosine) whose category is the vector's own; NaN where it has none (-1).

    Time is quadratic in M, so it is meant for a sample; memory is not.
    """
    unit = unit_rows(vectors)
    blocks = (np.arange(start, min(start + _BLOCK, len(unit))) for start in range(0, len(unit), _BLOCK))
    shares = np.concatenate([_same_category(unit, categories, rows) for rows in blocks])
    return np.where(categories >= 0, shares, np.nan)


def _same_category(unit: npt.NDArray[np.float64], categories: npt.NDArray[np.int32], rows: npt.NDArray[np.int64]) -> Floats:
    near = min(_NEIGHBOURS, len(unit) - 1)
    cosines = unit[rows] @ unit.T
    cosines[np.arange(len(rows)), rows] = -np.inf
    nearest = np.argpartition(-cosines, near - 1, axis=1)[:, :near]
    return np.asarray((categories[nearest] == categories[rows][:, None]).mean(axis=1))


def unit_rows(vectors: Floats) -> npt.NDArray[np.float64]:
    """Rows at length 1; a zero row stays."""
    exact = vectors.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    return np.asarray(exact / np.where(lengths > 0, lengths, 1.0))
