"""The verdict: sentences that follow from the figures."""

import pytest

from retrieval.evaluation.bootstrap import Interval
from retrieval.evaluation.comparison import Comparison, Difference
from retrieval.report.content import FrontierPoint, HealthFigure, ReportContent, Results, System
from retrieval.report.verdict import comparison, cost_of_variety, interest_state, quality, verdict


def _against(low: float, high: float, adjusted: float | None = None) -> Comparison:
    return Comparison(users=10, differences={"recall@50": Difference(mean=(low + high) / 2, low=low, high=high, adjusted=adjusted)})


def _results(**comparisons: Comparison) -> Results:
    main = System(name="sa", role="main", metrics={"recall@50": Interval(mean=0.25, low=0.24, high=0.26)})
    return Results(systems=(main,), users=604, comparisons=comparisons)


def _curve(*points: tuple[float, float, float]) -> list[FrontierPoint]:
    return [FrontierPoint(weight=w, n=50, metrics={"recall": {"mean": r}, "diversity": {"mean": d}}) for w, r, d in points]


def test_quality_names_the_share_the_interval_and_the_users() -> None:
    sentence = quality(_results())
    assert sentence.startswith("sa finds 25.0\u00a0% of the items")
    assert "recall@50 0.2500, 95 % interval 0.2400 to 0.2600 over 604 users" in sentence


def test_quality_of_another_metric_claims_no_share() -> None:
    main = System(name="sa", role="main", metrics={"ndcg@10": Interval(mean=0.123)})
    assert quality(Results(primary="ndcg@10", systems=(main,))) == "sa reaches 0.1230 at ndcg@10 (ndcg@10 0.1230)."


def test_a_clear_win_is_said_with_its_size() -> None:
    assert comparison(_results(popular=_against(0.1, 0.2))) == (
        "On the same users' recall@50 it is better than popular (by 0.1500, interval 0.1000 to 0.2000)."
    )


def test_a_loss_is_said_as_plainly() -> None:
    sentence = comparison(_results(dnn=_against(-0.04, -0.02)))
    assert "is worse than dnn (by 0.0300, interval 0.0200 to 0.0400)" in sentence
    assert "better" not in sentence


@pytest.mark.parametrize(("low", "high"), [(-0.01, 0.02), (0.0, 0.02), (-0.02, 0.0)])
def test_no_difference_is_neither_win_nor_loss(low: float, high: float) -> None:
    sentence = comparison(_results(k1=_against(low, high)))
    assert "cannot be told apart from k1" in sentence
    assert "better" not in sentence
    assert "worse" not in sentence


@pytest.mark.parametrize(("adjusted", "words"), [(0.04, "is better than k1"), (0.06, "cannot be told apart from k1")])
def test_the_corrected_value_decides_beside_the_interval(adjusted: float, words: str) -> None:
    assert words in comparison(_results(k1=_against(0.01, 0.02, adjusted)))


def test_several_baselines_are_grouped() -> None:
    sentence = comparison(_results(a=_against(0.1, 0.2), b=_against(0.1, 0.2), c=_against(-0.1, 0.2)))
    assert sentence.index("better than a (") < sentence.index(" and b (") < sentence.index("; it cannot be told apart from c (")


def test_without_baselines_it_says_so() -> None:
    assert comparison(_results()) == "It was compared with no baseline on recall@50."


def test_variety_names_the_most_varied_point_that_keeps_its_recall() -> None:
    sentence = cost_of_variety(_curve((1.0, 0.10, 0.9), (0.0, 0.20, 0.5), (0.1, 0.198, 0.6), (0.2, 0.195, 0.7)), "50")
    assert "lambda 0.2 moves diversity@50 from 0.5000 to 0.7000 and recall@50 from 0.2000 to 0.1950" in sentence


def test_variety_that_is_dear_everywhere_is_named_at_its_full_price() -> None:
    assert "lambda 1 moves diversity@50 from 0.5000 to 0.9000 and recall@50 from 0.2000 to 0.1000" in cost_of_variety(
        _curve((0.0, 0.2, 0.5), (1.0, 0.1, 0.9)), "50"
    )


def test_variety_names_the_builder_that_gives_most_of_it() -> None:
    points = [*_curve((0.0, 0.2, 0.5), (1.0, 0.199, 0.6)), *_curve((0.0, 0.2, 0.5), (0.5, 0.198, 0.7))]
    points[2:] = [point.model_copy(update={"builder": "mmr"}) for point in points[2:]]
    assert cost_of_variety(points, "50").startswith("Building lists by mmr with lambda 0.5 moves diversity@50 from 0.5000 to 0.7000")


def test_variety_that_does_not_come_is_not_claimed() -> None:
    assert "does not make the lists more varied" in cost_of_variety(_curve((0.0, 0.2, 0.5), (1.0, 0.2, 0.5)), "50")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.1, 0.2, 0.3), "are alive"),
        ((0.1, 0.2, 0.9), "only partly alive (out of range: figure 2 0.9000)"),
        ((0.9, 0.9, 0.1), "are collapsed"),
        ((None, None, None), "was not measured"),
    ],
)
def test_interests_are_alive_or_collapsed(values: tuple[float | None, ...], expected: str) -> None:
    health = [HealthFigure(label=f"figure {number}", value=value, at_most=0.5) for number, value in enumerate(values)]
    assert expected in interest_state(health)


def test_there_are_three_sentences_even_of_nothing() -> None:
    sentences = verdict(ReportContent())
    assert len(sentences) == 3
    assert all(sentence.endswith(".") and "None" not in sentence for sentence in sentences)
