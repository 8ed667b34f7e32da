"""Probabilities from scores: planted ones are found again, and the order of scores stays."""

import numpy as np
import pytest

from retrieval.recall.pools import Lists
from retrieval.recall.probabilities import ScoreProbabilities, calibration_quality, fit_probabilities

METHODS = ["platt", "isotonic"]


def planted(count: int = 20_000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, the probabilities they stand for, and hits drawn from these."""
    rng = np.random.default_rng(3)
    scores = rng.normal(7.0, 3.0, count)
    true = 1 / (1 + np.exp(-(0.6 * scores - 6.0)))
    return scores, true, rng.random(count) < true


@pytest.mark.parametrize("method", METHODS)
def test_planted_probabilities_are_found(method) -> None:
    scores, true, hits = planted()
    found = fit_probabilities(method, scores, hits).of(scores.astype(np.float32), np.zeros(len(scores), np.int32))
    assert np.abs(found - true).mean() < 0.02
    assert found.dtype == np.float32
    assert ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_better_score_is_never_less_probable(method) -> None:
    scores, _, hits = planted(500)
    grid = np.linspace(-30, 50, 999, dtype=np.float32)
    assert (np.diff(fit_probabilities(method, scores, hits).of(grid, np.zeros(999, np.int32))) >= 0).all()
    # Where a better score means fewer hits, all are alike.
    against = fit_probabilities(method, -scores, hits).of(grid, np.zeros(999, np.int32))
    np.testing.assert_allclose(against, hits.mean(), atol=0.02)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("hits", [[], [False, False], [True, True]])
def test_without_hits_and_misses_there_is_only_their_share(method, hits: list[bool]) -> None:
    found = fit_probabilities(method, np.arange(len(hits), dtype=float), np.array(hits, dtype=bool))
    assert found.of(np.array([-5, 5], np.float32), np.zeros(2, np.int32)).tolist() == [float(any(hits))] * 2


def test_lists_keep_rows_order_and_fillers() -> None:
    lists = Lists.empty(2, 3)
    lists.rows[0], lists.scores[0], lists.interest[0] = [4, 2, 9], [3.0, 8.0, 0.0], [1, 0, -1]
    known = ScoreProbabilities(method="isotonic", scores=(0.0, 10.0), probabilities=(0.0, 1.0), popular=0.25)
    found = known.of_lists(lists)
    np.testing.assert_array_equal(found.rows, lists.rows)
    np.testing.assert_allclose(found.scores, [[0.3, 0.8, 0.25], [-np.inf] * 3], rtol=1e-6)


def test_it_survives_its_file() -> None:
    scores, _, hits = planted(300)
    for method in METHODS:
        found = fit_probabilities(method, scores, hits, 0.1)
        assert ScoreProbabilities.model_validate_json(found.model_dump_json()) == found


def test_quality_is_that_of_users_it_was_not_fitted_on() -> None:
    scores, _, hits = planted()
    owners = np.arange(len(scores)) // 10
    for method in METHODS:
        found = calibration_quality(method, owners, scores, hits)
        assert found.error < 0.02
        assert found.brier < 0.8 * found.constant
    noise = calibration_quality("isotonic", owners[:200], scores[:200], np.random.default_rng(1).random(200) < 0.5)
    assert noise.brier > noise.constant
