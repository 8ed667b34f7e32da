"""Every metric against values worked out by hand."""

from math import log2

import numpy as np
import polars as pl
import pytest

from retrieval.evaluation import beyond, metrics
from retrieval.evaluation.evaluator import evaluate
from retrieval.evaluation.judgements import ground_truth
from retrieval.evaluation.metrics import METRICS
from retrieval.evaluation.settings import EvaluationSettings

# Hits at ranks 2 and 4, three targets.
HITS = np.array([[False, True, False, True, False]])
TARGETS = np.array([3])
CUTOFFS = (1, 2, 4, 5)
AT_2, AT_3, AT_4, AT_5 = (1 / log2(rank + 1) for rank in (2, 3, 4, 5))
IDEAL_3 = 1 + AT_2 + AT_3

GOLDEN = {
    "recall": [0, 1 / 3, 2 / 3, 2 / 3],
    "hr": [0, 1, 1, 1],
    "precision": [0, 1 / 2, 2 / 4, 2 / 5],
    # The ideal list of length n has min(n, 3) hits.
    "ndcg": [0, AT_2 / (1 + AT_2), (AT_2 + AT_4) / IDEAL_3, (AT_2 + AT_4) / IDEAL_3],
    # The ideal has as many hits as the list itself: 1, then 2.
    "ndcg_comirec": [0, AT_2, (AT_2 + AT_4) / (1 + AT_2), (AT_2 + AT_4) / (1 + AT_2)],
    "mrr": [0, 1 / 2, 1 / 2, 1 / 2],
    "map": [0, (1 / 2) / 2, (1 / 2 + 2 / 4) / 3, (1 / 2 + 2 / 4) / 3],
}


def test_every_metric_has_a_golden_value():
    assert sorted(GOLDEN) == sorted(METRICS)


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_metric(name):
    assert METRICS[name](HITS, TARGETS, CUTOFFS)[0] == pytest.approx(GOLDEN[name], abs=1e-12)


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_no_hit_scores_zero(name):
    assert METRICS[name](np.zeros((1, 5), bool), TARGETS, CUTOFFS).tolist() == [[0.0] * 4]


@pytest.mark.parametrize("name", sorted(set(GOLDEN) - {"recall", "precision"}))
def test_all_targets_first_scores_one(name):
    hits = np.array([[True, True, True, False, False]])
    assert METRICS[name](hits, TARGETS, CUTOFFS)[0] == pytest.approx([1.0] * 4)


def test_one_hit_of_many_targets_shows_how_the_two_ndcgs_differ():
    hits, targets = np.array([[True, False, False]]), np.array([10])
    assert metrics.ndcg_comirec(hits, targets, [3])[0, 0] == 1.0
    assert metrics.ndcg(hits, targets, [3])[0, 0] == pytest.approx(1 / IDEAL_3)


def test_diversity():
    # Pairs within 4 of categories a b a a: 3 of 6 are equal. The item without a category at rank 5 is left out.
    found = beyond.diversity(np.array([[0, 1, 0, 0, -1], [-1, 2, -1, -1, -1]], np.int32), (1, 2, 3, 4, 5))
    assert found[0] == pytest.approx([np.nan, 1.0, 2 / 3, 1 / 2, 1 / 2], nan_ok=True)
    assert np.isnan(found[1]).all()


def test_novelty():
    bits = beyond.surprise(np.array([4, 2, 2, 0]))
    # Shares of the 8 events; an item never seen counts as one event.
    assert bits.tolist() == [1.0, 2.0, 2.0, 3.0]
    found = beyond.novelty(np.array([[1.0, 3.0, np.nan], [np.nan] * 3]), (1, 2, 3))
    assert found[0].tolist() == [1.0, 2.0, 2.0]
    assert np.isnan(found[1]).all()


def test_coverage_and_gini():
    shown = beyond.exposure(np.array([[0, 1], [0, -1], [0, 9]], np.int32), 4)
    assert shown.tolist() == [3, 1, 0, 0]
    assert beyond.coverage(shown) == 0.5
    # Mean absolute difference 2 (3 + 3 + 2 + 1 + 1 + 0) / 16 over twice the mean exposure 1.
    assert beyond.gini(shown) == pytest.approx(20 / 16 / 2)
    assert beyond.gini(np.array([5, 5, 5])) == pytest.approx(0.0)
    assert beyond.gini(np.array([0, 0])) is None


def test_primary_categories_are_the_first_ones():
    assert beyond.primary_categories(pl.Series([["b", "a"], ["a"], [], None, ["b"]])).tolist() == [1, 0, -1, -1, 1]
    assert beyond.primary_categories(pl.Series(["y", None, "x"])).tolist() == [1, -1, 0]
    assert beyond.primary_categories(pl.Series([[], []])).tolist() == [-1, -1]


def test_whole_evaluation_of_three_users():
    truth = ground_truth(pl.DataFrame({"user_id": [1, 1, 1, 2, 3], "item_id": [10, 20, 20, 30, 10]}))
    rows = {"user_id": [2, 1, 1, 9, 2], "item_id": [30, 40, 20, 10, 99], "rank": [2, 1, 2, 1, 1]}
    items = pl.DataFrame({"item_id": [10, 20, 30, 40], "categories": [["a"], ["a"], ["b"], ["b"]], "events": [2, 2, 4, 8]})
    found = evaluate(pl.DataFrame(rows), truth, items, EvaluationSettings(cutoffs=(1, 2), primary="recall@2", resamples=20))
    assert found.per_user["user_id"].to_list() == [1, 2, 3]
    assert found.per_user["recall@2"].to_list() == [0.5, 1.0, 0.0]
    assert found.per_user["mrr@2"].to_list() == [0.5, 0.5, 0.0]
    assert found.per_user["diversity@2"].to_list() == [1.0, None, None]
    assert found.per_user["novelty@2"].to_list() == [2.0, 2.0, None]
    assert found.summary.metrics["recall@2"].mean == 0.5
    assert (found.summary.overall["coverage@2"], found.summary.overall["coverage@1"]) == (0.75, 0.25)
    assert found.summary.counts == {
        "users": 3,
        "targets": 4,
        "users_without_candidates": 1,
        "longest_list": 2,
        "rows_of_other_users": 1,
        "rows_outside_catalog": 1,
    }
