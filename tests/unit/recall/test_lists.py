"""List builders by name, the lists over lambda, the overlap of interests, and the settings of recall."""

from typing import get_args

import numpy as np
import pytest

from retrieval.core.errors import UsageError
from retrieval.core.settings import parse_settings
from retrieval.index.pools import Pools
from retrieval.recall.context import ListContext
from retrieval.recall.lists import LIST_BUILDERS, build_lists, lists_over_lambdas, mean_overlap, needs_of
from retrieval.recall.settings import RecallSettings


def pools_of(rows: list[list[int]]) -> Pools:
    """Scores 1, 1/2, 1/3, ... in the given order; -1 marks an empty place."""
    pools = Pools.empty(len(rows), len(rows[0]))
    pools.rows[:] = rows
    pools.scores[:] = np.where(pools.rows >= 0, 1 / np.arange(1, len(rows[0]) + 1), -np.inf)
    pools.interest[:] = np.where(pools.rows >= 0, 0, -1)
    return pools


CONTEXT = ListContext(np.array([0, 0, 0, 1, 1, -1], dtype=np.int32))
POOLS = pools_of([[0, 1, 2, 3, 4, 5], [5, 3, 0, -1, -1, -1]])


def test_lists_are_no_view_of_the_pool() -> None:
    pools = pools_of([[0, 1, 2]])
    lists = build_lists(pools, CONTEXT, RecallSettings(n=2, diversity="top"))
    lists.rows[:] = 9
    assert pools.rows.tolist() == [[0, 1, 2]]


def test_an_unknown_builder_is_refused_with_the_recipe_and_not_after_training() -> None:
    with pytest.raises(UsageError, match=r"category_greedly.*'category_greedy', 'multi_category_greedy', 'mmr'"):
        parse_settings(RecallSettings, {"diversity": "category_greedly"}, "recipe.toml")
    assert set(get_args(RecallSettings.model_fields["diversity"].annotation)) == set(LIST_BUILDERS)


def test_lists_over_lambdas_equal_single_runs_and_spread_categories() -> None:
    settings = RecallSettings(n=2)
    found = dict(lists_over_lambdas(POOLS, CONTEXT, settings, [0.0, 0.3, 5.0]))
    assert list(found) == [0.0, 0.3, 5.0]
    assert [found[value].rows[0].tolist() for value in found] == [[0, 1], [0, 3], [0, 3]]
    for value, lists in found.items():
        alone = build_lists(POOLS, CONTEXT, RecallSettings(n=2, lambda_=value))
        assert alone.rows.tobytes() == lists.rows.tobytes()


def test_what_builders_need_together() -> None:
    assert needs_of(["category_greedy", "top", "quota"]) == set()
    assert needs_of(["mmr", "calibration"]) == {"vectors", "labels", "histories"}
    with pytest.raises(UsageError, match="unknown list builder 'mrr'; did you mean 'mmr'"):
        needs_of(["mrr"])


def naive_overlap(tops: list[Pools], user: int) -> float:
    lists = [{row for row in top.rows[user].tolist() if row >= 0} for top in tops]
    lists = [each for each in lists if each]
    pairs = [(a, b) for place, a in enumerate(lists) for b in lists[:place]]
    return float(np.mean([len(a & b) / len(a | b) for a, b in pairs])) if pairs else float("nan")


def test_overlap_is_the_mean_jaccard_of_pairs() -> None:
    rng = np.random.default_rng(2)
    tops = [Pools.empty(40, 8) for _ in range(4)]
    for top in tops:
        for user in range(40):
            length = int(rng.choice([0, 0, 3, 8]))
            top.rows[user, :length] = rng.choice(14, length, replace=False)
    found = mean_overlap(tops)
    assert found.dtype == np.float32
    assert found == pytest.approx([naive_overlap(tops, user) for user in range(40)], nan_ok=True)
    assert np.isnan(found).any()
    assert np.isfinite(found).any()


def test_overlap_of_equal_and_of_disjoint_lists() -> None:
    one, two = pools_of([[0, 1, 2]]), pools_of([[3, 4, 5]])
    assert mean_overlap([one, one]).tolist() == [1.0]
    assert mean_overlap([one, two]).tolist() == [0.0]
    assert np.isnan(mean_overlap([one])).all()


def test_recipes_write_lambda() -> None:
    assert parse_settings(RecallSettings, {"lambda": 0.25}, "recipe").lambda_ == 0.25
    assert RecallSettings(lambda_=0.25) == RecallSettings.model_validate({"lambda": 0.25})
    with pytest.raises(UsageError, match="did you mean 'lambda'"):
        parse_settings(RecallSettings, {"lamda": 0.25}, "recipe")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lambda": -1}, "lambda"),
        ({"lambda": float("inf")}, "lambda"),
        ({"n": 0}, "'n'"),
        ({"n": 50, "pool": 20}, "smaller than n"),
        ({"builder": {"window": 1}}, "window = 1 compares an item with none"),
        ({"builder": {"jitter": -1e-9}}, "builder.jitter"),
        ({"builder": {"smoothing": 0}}, "builder.smoothing"),
        ({"builder": {"per_interest": 2, "least_per_interest": 3}}, "least_per_interest = 3 is more than per_interest = 2"),
        ({"builder": {"windows": 3}}, "did you mean 'window'"),
    ],
)
def test_bad_settings_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_settings(RecallSettings, values, "recipe")


def test_the_pool_is_wider_than_the_list() -> None:
    assert [RecallSettings(n=n).pool_size for n in (10, 100, 500)] == [200, 200, 1000]
    assert RecallSettings(n=10, pool=64).pool_size == 64
