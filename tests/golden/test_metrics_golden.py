"""Every metric against values worked out by hand."""

from math import log2

import numpy as np
import polars as pl
import pytest

from retrieval.evaluation import beyond
from retrieval.evaluation.evaluator import evaluate
from retrieval.evaluation.facts import HEAD, TAIL, TORSO, Labels, popularity_groups, surprise
from retrieval.evaluation.settings import ACCURACY_METRICS, EvaluationSettings
from retrieval.evaluation.truth import ground_truth

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


def scores(hits, targets, cutoffs):
    """Lists of items 0, 1, ...; targets are the hits and so many others that each user has as many as told."""
    users, depth = hits.shape
    ranked = pl.DataFrame({"user_id": np.repeat(np.arange(users), depth), "item_id": np.tile(np.arange(depth), users)})
    ranked = ranked.with_columns(rank=pl.col("item_id") + 1)
    pairs = [(u, item) for u in range(users) for item in [*np.flatnonzero(hits[u]).tolist(), *range(100, 100 + targets[u] - hits[u].sum())]]
    truth = ground_truth(pl.DataFrame(pairs, schema=["user_id", "item_id"], orient="row"))
    settings = EvaluationSettings(cutoffs=cutoffs, primary=f"recall@{cutoffs[0]}", resamples=10)
    return evaluate(ranked, truth, None, settings).per_user


def metric(name, hits, targets=TARGETS, cutoffs=CUTOFFS):
    return scores(hits, targets, cutoffs).select(f"{name}@{n}" for n in cutoffs).row(0)


def test_every_metric_has_a_golden_value():
    assert sorted(GOLDEN) == sorted(ACCURACY_METRICS)


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_metric(name):
    assert metric(name, HITS) == pytest.approx(GOLDEN[name], abs=1e-12)


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_no_hit_scores_zero(name):
    assert metric(name, np.zeros((1, 5), bool)) == (0.0,) * 4


@pytest.mark.parametrize("name", sorted(set(GOLDEN) - {"recall", "precision"}))
def test_all_targets_first_scores_one(name):
    assert metric(name, np.array([[True, True, True, False, False]])) == pytest.approx([1.0] * 4)


def test_one_hit_of_many_targets_shows_how_the_two_ndcgs_differ():
    hits, targets = np.array([[True, False, False]]), np.array([10])
    assert metric("ndcg_comirec", hits, targets, (3,)) == (1.0,)
    assert metric("ndcg", hits, targets, (3,)) == pytest.approx((1 / IDEAL_3,))


def beyond_accuracy(items, categories, cutoffs, events=None, targets=None, **more):
    """One list a row of `items` (-1: no item) over a catalog 0, 1, ... of these categories."""
    rows = [(user, item, place + 1) for user, row in enumerate(items) for place, item in enumerate(row) if item >= 0]
    pairs = targets or [(user, 0) for user in range(len(items))]
    truth = ground_truth(pl.DataFrame(pairs, ["user_id", "item_id"], orient="row"))
    kinds = {"item_id": pl.Int64, "categories": pl.List(pl.String), "events": pl.Int64}
    catalog = pl.DataFrame({"item_id": range(len(categories)), "categories": categories, "events": events or [1] * len(categories)}, kinds)
    lists = pl.DataFrame(rows, ["user_id", "item_id", "rank"], orient="row")
    return evaluate(lists, truth, catalog, EvaluationSettings(cutoffs=cutoffs, primary=f"recall@{cutoffs[0]}", resamples=10, **more))


def test_diversity_and_entropy():
    # Pairs within 4 of categories a b a a: 3 of 6 are equal. The item without a category at rank 5 is left out.
    categories = [["a"], ["b"], ["a"], ["a"], [], ["c"], None, []]
    found = beyond_accuracy([[0, 1, 2, 3, 4], [4, 5, 6, 7, -1]], categories, (1, 2, 3, 4, 5)).per_user
    columns = [[f"{name}@{n}" for n in (1, 2, 3, 4, 5)] for name in ("diversity", "entropy")]
    assert found.select(columns[0]).row(0) == (None, *(pytest.approx(value) for value in (1.0, 2 / 3, 1 / 2, 1 / 2)))
    assert found.select(columns[0]).row(1) == (None,) * 5
    three_of_four = 0.25 * 2 + 0.75 * log2(4 / 3)
    assert found.select(columns[1]).row(0) == pytest.approx((0.0, 1.0, log2(3) - 2 / 3, three_of_four, three_of_four), abs=1e-12)
    assert found.select(columns[1]).row(1) == (None, 0.0, 0.0, 0.0, 0.0)


def test_novelty():
    # Shares of the 8 events; an item never seen counts as one event.
    assert surprise(np.array([4, 2, 2, 0])).tolist() == [1.0, 2.0, 2.0, 3.0]
    found = beyond_accuracy([[0, 3, -1], [-1, -1, -1]], [["a"]] * 4, (1, 2, 3), events=[4, 2, 2, 0]).per_user
    assert found.select("novelty@1", "novelty@2", "novelty@3").rows() == [(1.0, 2.0, 2.0), (None, None, None)]


def test_head_torso_and_tail():
    # Of 20 events the head holds the first fifth, the tail at most the last: 1 + 1 + 2, and what has none.
    events = np.array([1, 9, 5, 2, 0, 1, 2])
    assert popularity_groups(events, 0.2, 0.2).tolist() == [TAIL, HEAD, TORSO, TORSO, TAIL, TAIL, TAIL]
    found = beyond_accuracy([[1, 0, 4, 2]], [["a"]] * 7, (1, 4), events=events.tolist()).per_user
    assert found.select("head_share@1", "head_share@4", "torso_share@4", "tail_share@4").row(0) == (1.0, 0.25, 0.25, 0.5)


def test_alpha_ndcg():
    # Targets of categories a a b; the list shows an a, a miss, the other a. Ideal: a b a.
    targets, categories = [(0, 0), (0, 1), (0, 2)], [["a"], ["a"], ["b"], ["b"]]
    found = beyond_accuracy([[0, 3, 1]], categories, (1, 2, 3), targets=targets).per_user
    expected = [1, 1 / (1 + AT_2), (1 + 0.5 * AT_3) / (1 + AT_2 + 0.5 * AT_3)]
    assert found.select("alpha_ndcg@1", "alpha_ndcg@2", "alpha_ndcg@3").row(0) == pytest.approx(expected)
    # With alpha 0 every hit gains the same, so it is the plain one; without a categorised target there is none.
    plain = beyond_accuracy([[0, 3, 1]], categories, (3,), targets=targets, alpha=0.0).per_user
    assert plain["alpha_ndcg@3"][0] == pytest.approx(plain["ndcg@3"][0])
    assert beyond_accuracy([[0]], [[], ["a"]], (1,)).per_user["alpha_ndcg@1"].to_list() == [None]


def test_coverage_and_gini():
    shown = np.array([3, 1, 0, 0])
    assert beyond.coverage(shown) == 0.5
    # Mean absolute difference 2 (3 + 3 + 2 + 1 + 1 + 0) / 16 over twice the mean exposure 1.
    assert beyond.gini(shown) == pytest.approx(20 / 16 / 2)
    assert beyond.gini(np.array([5, 5, 5])) == pytest.approx(0.0)
    assert beyond.gini(np.array([0, 0])) is None
    overall = beyond_accuracy([[0, 1], [0, -1], [0, -1]], [["a"]] * 4, (1, 2)).summary.overall
    assert [overall[name].mean for name in ("coverage@1", "coverage@2", "gini@1", "gini@2")] == pytest.approx([0.25, 0.5, 0.75, 0.625])


def test_primary_categories_are_the_first_ones():
    assert Labels.of(pl.Series([["b", "a"], ["a"], [], None, ["b"]])).primary.tolist() == [1, 0, -1, -1, 1]
    assert Labels.of(pl.Series(["y", None, "x"])).primary.tolist() == [1, -1, 0]
    assert Labels.of(pl.Series([[], []])).primary.tolist() == [-1, -1]
    # Each category once, in order; nulls are none.
    both = Labels.of(pl.Series([["b", None, "a", "b"], None]))
    assert (both.offsets.tolist(), both.codes.tolist(), both.names) == ([0, 2, 2], [1, 0], ["a", "b"])


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
    assert (found.summary.overall["coverage@2"].mean, found.summary.overall["coverage@1"].mean) == (0.75, 0.25)
    assert found.summary.counts == {
        "users": 3,
        "targets": 4,
        "users_without_candidates": 1,
        "longest_list": 2,
        "rows_of_other_users": 1,
        "rows_outside_catalog": 1,
    }
