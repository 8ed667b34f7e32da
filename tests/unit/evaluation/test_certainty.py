"""What a set of users can show, what survives correction, and intervals of figures that are no means over users."""

import numpy as np
import polars as pl
import pytest
from scipy import stats

from retrieval.evaluation.beyond import Exposure, paired
from retrieval.evaluation.certainty import detectable, detectable_sentence, holm, p_values
from retrieval.evaluation.comparison import compare, corrected
from retrieval.evaluation.evaluator import evaluate
from retrieval.evaluation.judgements import JudgedLists
from retrieval.evaluation.measurements import Measurements, summarise
from retrieval.evaluation.settings import EvaluationSettings
from retrieval.evaluation.truth import ground_truth

SETTINGS = EvaluationSettings(cutoffs=(5,), primary="recall@5", resamples=500)


def measured(**columns):
    frame = pl.DataFrame({"user_id": range(len(next(iter(columns.values())))), **columns})
    return Measurements(frame.rename({name: name.replace("_at_", "@") for name in columns}), summarise(frame, SETTINGS))


def test_p_values_are_those_of_scipy():
    rng = np.random.default_rng(0)
    values = rng.normal(0.1, 1.0, (50, 3))
    errors = values.std(axis=0, ddof=1) / np.sqrt(50)
    assert p_values(values.mean(axis=0).tolist(), errors.tolist(), [50] * 3) == pytest.approx(
        stats.ttest_1samp(values, 0.0).pvalue.tolist()
    )
    assert p_values([0.0, 0.2, None, 0.3], [0.0, 0.0, 1.0, 1.0], [9, 9, 9, 1]) == [1.0, 0.0, None, None]


def test_holm_by_hand():
    # Three others: the least times 3, the next times 2, and never less than the one before.
    found = holm({"primary": 0.04, "a": 0.01, "b": 0.02, "c": 0.03, "none": None}, "primary")
    assert found == {"primary": 0.04, "a": pytest.approx(0.03), "b": pytest.approx(0.04), "c": pytest.approx(0.04), "none": None}


def test_many_metrics_of_equal_systems_are_rarely_called_different():
    rng, wrong = np.random.default_rng(1), 0
    for _ in range(100):
        one, other = ({"recall_at_5": rng.random(200), **{f"hr_at_{n}": rng.random(200) for n in range(1, 13)}} for _ in range(2))
        found = compare(measured(**one), measured(**other))
        wrong += np.array([found.higher("recall@5") is not None, any(found.higher(name) is not None for name in found.differences)])
    # Uncorrected it would be 49 of 100; the one that decides and the others have 5 each.
    assert wrong[0] <= 10
    assert wrong[1] <= 17


def test_a_difference_of_the_detectable_size_is_seen_as_often_as_promised():
    rng, users, seen = np.random.default_rng(2), 400, 0
    noise = 0.3
    reach = detectable({"recall@5": noise / np.sqrt(users)}, 0.95, 0.8)["recall@5"]
    for _ in range(300):
        base = rng.random(users)
        found = compare(measured(recall_at_5=base + rng.normal(reach, noise, users)), measured(recall_at_5=base))
        seen += found.higher("recall@5") is True
        assert found.detectable["recall@5"] == pytest.approx(reach, rel=0.15)
    assert 0.73 <= seen / 300 <= 0.87


def test_the_detectable_difference_in_words():
    assert detectable_sentence("recall@50", 0.004, 0.8) == "This set can show a difference of 0.40 points of recall@50 (80 % power)."
    assert detectable_sentence("recall@50", 0.123, 0.8) == "This set can show a difference of 12 points of recall@50 (80 % power)."
    assert detectable_sentence("novelty@50", 0.05, 0.9) == "This set can show a difference of 0.050 of novelty@50 (90 % power)."
    found = measured(recall_at_5=np.random.default_rng(3).random(400))
    assert found.summary.detectable_in_words("hr@5") == ""
    assert compare(found, found).detectable_in_words("recall@5").startswith("This set can show a difference of 0 points")


def test_intervals_of_coverage_and_gini_hold_what_as_many_other_users_give():
    """Lists of users drawn from a population: the truth is the mean figure over many such draws."""
    rng, users, items = np.random.default_rng(4), 400, 300
    weights = np.arange(1, items + 1) ** -0.7

    def drawn():
        keys = rng.random((users, items)) ** (1 / weights)
        return np.argsort(-keys, axis=1)[:, :5].astype(np.int32)

    found, figures = [], []
    for _ in range(150):
        exposure = Exposure(items, (5,), threads=1)
        nothing = (np.empty((users, 0), np.int16), np.zeros(users + 1, np.int64), np.empty(0, np.int32), np.empty(0, np.int32), {})
        exposure.add(JudgedLists(pl.Series(range(users)), drawn(), *nothing))
        found.append(exposure.figures(0.95))
        figures.append([found[-1][name].mean for name in ("coverage@5", "gini@5")])
    for column, name in enumerate(("coverage@5", "gini@5")):
        truth = np.mean(figures, axis=0)[column]
        held = np.mean([each[name].low <= truth <= each[name].high for each in found])
        assert held >= 0.9, (name, held)


def test_several_systems_beside_one_are_corrected_together():
    rng = np.random.default_rng(6)
    one, *others = (measured(recall_at_5=rng.random(60), hr_at_5=rng.random(60)) for _ in range(4))
    found = [compare(one, other) for other in others]
    together = corrected(found, "recall@5")
    values = sorted(each.differences["recall@5"].p for each in found)
    assert min(each.differences["recall@5"].adjusted for each in together) == pytest.approx(min(1.0, 3 * values[0]))
    assert corrected(found[:1], "recall@5") == found[:1]


def test_paired_differences_of_coverage_and_gini():
    """Two systems on the same users: what both owe to the users cancels out, and equal ones are rarely told apart."""
    rng, users, items = np.random.default_rng(5), 400, 300
    weights, ids = np.arange(1, items + 1) ** -0.7, range(400)

    def lists(flatness):
        keys = rng.random((users, items)) ** (1 / weights**flatness)
        return pl.DataFrame(
            {"user_id": np.repeat(ids, 5), "item_id": np.argsort(-keys, axis=1)[:, :5].ravel(), "rank": [1, 2, 3, 4, 5] * users}
        )

    catalog, truth = pl.DataFrame({"item_id": range(items)}), ground_truth(pl.DataFrame({"user_id": ids, "item_id": [0] * users}))
    base, same, flat = (evaluate(lists(flatness), truth, catalog, SETTINGS) for flatness in (2.0, 2.0, 0.5))
    found = compare(flat, base)
    assert found.differences["coverage@5"].mean == pytest.approx(
        flat.summary.overall["coverage@5"].mean - base.summary.overall["coverage@5"].mean
    )
    assert (found.higher("coverage@5"), found.higher("gini@5")) == (True, False)
    assert (compare(same, base).higher("coverage@5"), compare(base, base).higher("gini@5")) == (None, None)
    assert found.differences["gini@5"].adjusted >= found.differences["gini@5"].p
    fewer = evaluate(lists(2.0), ground_truth(truth.pairs[:300]), catalog, SETTINGS)
    assert "coverage@5" not in compare(fewer, base).differences


def test_equal_systems_rarely_differ_in_coverage():
    rng, users, items, wrong = np.random.default_rng(7), 400, 300, np.zeros(2)
    weights = np.arange(1, items + 1) ** -1.5
    nothing = (np.empty((users, 0), np.int16), np.zeros(users + 1, np.int64), np.empty(0, np.int32), np.empty(0, np.int32), {})
    for _ in range(60):
        both = [Exposure(items, (5,), threads=1) for _ in range(2)]
        for exposure in both:
            lists = np.argsort(-(rng.random((users, items)) ** (1 / weights)), axis=1)[:, :5].astype(np.int32)
            exposure.add(JudgedLists(pl.Series(range(users)), lists, *nothing))
        for column, name in enumerate(("coverage@5", "gini@5")):
            one, other = (exposure.figures(0.95)[name].mean for exposure in both)
            found, p = paired(one - other, *(exposure.without()[name] for exposure in both), 0.95)
            assert (p < 0.05) == (not found.low <= 0.0 <= found.high)
            wrong[column] += p < 0.05
    assert (wrong <= 8).all(), wrong
