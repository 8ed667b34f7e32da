"""K lists a user are merged to one of n before anything is counted; the union is measured under its own name."""

import numpy as np
import polars as pl
import pytest

from retrieval.core.errors import DataContractError
from retrieval.evaluation.evaluator import evaluate
from retrieval.evaluation.settings import EvaluationSettings
from retrieval.evaluation.truth import ground_truth

TRUTH = ground_truth(pl.DataFrame({"user_id": [1, 1, 2], "item_id": [10, 13, 10]}))
# Interest 0: 10 11 12; interest 1: 12 13 14.
RANKED = pl.DataFrame({"user_id": [1] * 6, "interest": [0, 0, 0, 1, 1, 1], "item_id": [10, 11, 12, 12, 13, 14], "rank": [1, 2, 3] * 2})
SCORED = RANKED.drop("rank").with_columns(score=pl.Series([0.9, 0.2, 0.1, 0.8, 0.5, 0.4]))


def measured(candidates, **settings):
    chosen = EvaluationSettings(cutoffs=(2, 3), primary="recall@2", resamples=10, **settings)
    return evaluate(candidates, TRUTH, None, chosen)


@pytest.mark.parametrize("lists", [SCORED, SCORED.with_columns(RANKED["rank"]), RANKED])
@pytest.mark.parametrize("on_disk", [False, True])
def test_two_lists_of_three_are_one_of_three(tmp_path, lists, on_disk):
    by_score = "score" in lists.columns
    if on_disk:
        lists.sample(fraction=1, shuffle=True, seed=0).write_parquet(tmp_path / "part-0.parquet")
        lists = [tmp_path]
    found = measured(lists, lists="per-interest").per_user
    # By score: 10, 12, 13. In turns: 10, 12 (the first ones), then 11 before 13.
    assert found["recall@2"].to_list() == [0.5, 0.0]
    assert found["recall@3"].to_list() == [1.0 if by_score else 0.5, 0.0]
    # The union of the first two of both holds 10, 11, 12 and 13: twice the chances.
    assert found["union_recall@2"].to_list() == [1.0, 0.0]
    assert found["union_size@2"].to_list() == [4.0, 0.0]
    assert found["union_size@3"].to_list() == [5.0, 0.0]


def test_without_saying_so_two_lists_are_refused():
    with pytest.raises(DataContractError, match=r"two items at rank 1.*lists = 'per-interest'"):
        measured(RANKED)
    assert "union_recall@2" not in measured(RANKED.filter(pl.col("interest") == 0)).per_user.columns


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        (SCORED.with_columns(score=pl.Series([0.9, None, 0.1, 0.8, 0.5, 0.4])), "'score' has null or NaN"),
        (SCORED.with_columns(score=pl.Series([0.9, float("nan"), 0.1, 0.8, 0.5, 0.4])), "'score' has null or NaN"),
        (SCORED.with_columns(score=pl.lit("high")), "'score' is String; expected numbers"),
        (RANKED.with_columns(rank=pl.Series([1, None, 3, 1, 2, 3])), "'rank' is Int64 with 1 nulls"),
        (RANKED.with_columns(rank=pl.lit(0)), "expected ranks from 1"),
        (RANKED.drop("interest"), "no column 'interest'"),
        (RANKED.drop("rank"), "no column 'rank'|no column 'score'"),
        (pl.concat([RANKED, RANKED[:1]]), "an interest has an item twice"),
    ],
)
def test_faulty_lists(lists, message):
    with pytest.raises(DataContractError, match=message):
        measured(lists, lists="per-interest")


def test_what_each_interest_brought():
    lists = pl.DataFrame({"user_id": [1, 1, 1, 2, 2], "item_id": [10, 13, 7, 10, 5], "rank": [1, 2, 3, 1, 2], "interest": [0, 2, 2, 0, -1]})
    shares = {(each.n, each.interest): each for each in measured(lists).summary.interests}
    assert [(shares[2, k].places, shares[2, k].hits) for k in range(3)] == [(2, 2), (0, 0), (1, 1)]
    assert [(shares[3, k].places, shares[3, k].hits) for k in range(3)] == [(2, 2), (0, 0), (2, 1)]
    assert (shares[3, 0].share_of_places, shares[3, 0].share_of_hits, shares[3, 2].precision) == (0.5, pytest.approx(2 / 3), 0.5)
    assert shares[3, 1].precision is None
    assert measured(lists.drop("interest")).summary.interests == ()
    assert sum(each.share_of_places for (n, _), each in shares.items() if n == 2) == pytest.approx(1.0)
    assert np.isfinite([each.share_of_hits for each in shares.values()]).all()
