"""Measurements on disk and in comparison."""

import json

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from retrieval.core.errors import DataContractError, IntegrityError
from retrieval.evaluation.comparison import compare
from retrieval.evaluation.evaluator import evaluate
from retrieval.evaluation.facts import ItemFacts
from retrieval.evaluation.frontier import FrontierPoint, frontier
from retrieval.evaluation.measurements import Measurements, mean_over_runs, read_summary, summarise
from retrieval.evaluation.metrics import Knowledge
from retrieval.evaluation.settings import EvaluationSettings
from retrieval.evaluation.truth import ground_truth

SETTINGS = EvaluationSettings(cutoffs=(2,), primary="recall@2", resamples=300)


def measured(users, values, settings=SETTINGS, metric="recall@2"):
    per_user = pl.DataFrame({"user_id": users, metric: pl.Series(values, dtype=pl.Float64)})
    return Measurements(per_user, summarise(per_user, settings), per_user.select("user_id"))


def test_written_and_read_again(tmp_path):
    first = measured([1, 2, 3], [0.0, 1.0, None])
    first.write(tmp_path.joinpath)
    again = Measurements.read(tmp_path.joinpath)
    assert again.per_user.equals(first.per_user)
    assert again.summary == first.summary


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "{}", '{"schema_version": 99}', '{"schema_version": 2}', "\ud800"])
def test_damaged_summary_is_one_line(tmp_path, text):
    measured([1], [1.0]).write(tmp_path.joinpath)
    (tmp_path / "summary.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(IntegrityError) as caught:
        Measurements.read(tmp_path.joinpath)
    assert "summary.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_summary_is_one_line(tmp_path):
    with pytest.raises(IntegrityError, match="FileNotFoundError"):
        read_summary(tmp_path / "summary.json")


def test_summary_is_plain_json(tmp_path):
    measured([1, 2], [0.0, 1.0]).write(tmp_path.joinpath)
    found = json.loads((tmp_path / "summary.json").read_text())
    assert found["metrics"]["recall@2"]["mean"] == 0.5


def test_runs_are_averaged_user_by_user():
    together = mean_over_runs([measured([1, 2], [0.0, 1.0]), measured([2, 1], [0.5, None]), measured([1, 2], [1.0, 0.0])])
    assert together.per_user.rows() == [(1, 0.5), (2, 0.5)]
    assert together.summary.metrics["recall@2"].mean == 0.5


def test_pairing_is_narrower_on_correlated_systems():
    rng = np.random.default_rng(4)
    users = list(range(400))
    shared = rng.random(400)
    one, two = (measured(users, shared + shift + rng.normal(0, 0.02, 400)) for shift in (0.02, 0.0))
    paired = compare(one, two).differences["recall@2"]
    first, second = one.summary.metrics["recall@2"], two.summary.metrics["recall@2"]
    assert paired.high - paired.low < 0.2 * min(first.high - first.low, second.high - second.low)
    assert first.low < second.high
    assert compare(one, two).higher("recall@2") is True
    assert compare(two, one).higher("recall@2") is False
    assert compare(one, one).higher("recall@2") is None


def test_only_common_users_and_metrics_are_compared():
    one, two = measured([3, 1, 2], [1.0, 0.5, 0.0]), measured([9, 2, 3], [1.0, 1.0, 0.25])
    found = compare(one, two)
    assert found.users == 2
    assert found.differences["recall@2"].mean == pytest.approx((0.75 - 1.0) / 2)
    assert found.higher("hr@2") is None


def test_a_user_without_a_value_in_one_is_left_out():
    found = compare(measured([1, 2], [1.0, 0.5]), measured([1, 2], [None, 0.25]))
    assert found.differences["recall@2"].mean == 0.25


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (measured([7, 8], [1.0, 1.0]), "no common user"),
        (measured(["1", "2"], [1.0, 1.0]), "String"),
        (measured([1, 2], [1.0, 1.0], metric="hr@2"), "no metric in common"),
    ],
)
def test_incomparable_systems_are_one_line(second, message):
    with pytest.raises(DataContractError, match=message):
        compare(measured([1, 2], [0.0, 1.0]), second)


def test_frontier_is_the_evaluation_at_every_weight():
    truth = ground_truth(pl.DataFrame({"user_id": [1, 2], "item_id": ["a", "b"]}))
    items = pl.DataFrame({"item_id": ["a", "b", "c"], "categories": [["x"], ["x"], ["y"]], "events": [3, 2, 1]})
    alike = pl.DataFrame({"user_id": [1, 1, 2, 2], "item_id": ["a", "b", "a", "b"], "rank": [1, 2, 1, 2]})
    mixed = pl.DataFrame({"user_id": [1, 1, 2, 2], "item_id": ["a", "c", "a", "c"], "rank": [1, 2, 1, 2]})
    points = frontier(iter([("mmr", 0.5, mixed), ("dpp", 0.0, alike)]), truth, Knowledge.of(ItemFacts.of(items, SETTINGS)), SETTINGS)
    assert [(point.builder, point.weight) for point in points] == [("mmr", 0.5), ("dpp", 0.0)]
    assert [point.metrics["recall@2"].mean for point in points] == [0.5, 1.0]
    assert [point.metrics["diversity@2"].mean for point in points] == [1.0, 0.0]
    assert points[0].metrics == evaluate(mixed, truth, items, SETTINGS).summary.metrics
    assert FrontierPoint.model_validate_json(points[0].model_dump_json()) == points[0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cutoffs": ()}, "at least 1"),
        ({"cutoffs": (0,)}, "greater than or equal to 1"),
        ({"cutoffs": (50, 50)}, "twice"),
        ({"primary": "recal@50"}, "did you mean 'recall'"),
        ({"primary": "recall@7"}, "one of the cutoffs"),
        ({"primary": "recall"}, "one of the cutoffs"),
        *(({"primary": f"{name}@50"}, "higher is not better") for name in ("calibration_kl", "calibration_js", "gini", "head_share")),
        ({"confidence": 1.0}, "less than 1"),
        ({"frontier_lambdas": (-0.1,)}, "greater than or equal to 0"),
    ],
)
def test_wrong_settings_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        EvaluationSettings(**values)


def test_depth_is_the_longest_cutoff():
    settings = EvaluationSettings(cutoffs=(50, 5), primary="hr@5")
    assert (settings.depth, settings.primary_cutoff) == (50, 5)
