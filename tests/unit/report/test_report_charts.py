"""The plots: what plotly accepts, and what they leave out."""

import json

import plotly.graph_objects as go
import pytest

from retrieval.evaluation.bootstrap import Interval
from retrieval.report import charts, interest_charts, plots
from retrieval.report.content import FrontierPoint, ItemMap, MapPoint, ReportContent, System, TrainingCurve, TrainingPoint


def test_plotly_accepts_every_figure(content: ReportContent) -> None:
    systems = content.results.systems
    made = [
        charts.dots(systems, "recall@50"),
        charts.over_cutoffs(systems, "recall", (10, 50)),
        charts.frontier(content.frontier, "diversity@50", "recall@50"),
        charts.slices(systems, "users"),
        charts.slices(systems, "targets"),
        charts.index_candidates(content.index),
        interest_charts.training(content.training),
        interest_charts.health_over_training(content.training),
        interest_charts.item_map(content.interests.item_map),
    ]
    assert all(figure is not None for figure in made)
    assert [len(go.Figure(plots.painted(figure)).data) for figure in made] == [2, 2, 2, 2, 2, 1, 2, 2, 4]


def test_a_painted_figure_has_the_colours_of_its_scheme(content: ReportContent) -> None:
    figure = charts.frontier(content.frontier, "diversity@50", "recall@50")
    light, dark = (plots.painted(figure, dark=dark)["data"][0]["line"]["color"] for dark in (False, True))
    assert (light, dark) == (plots.scheme(dark=False)["series-0"], plots.scheme(dark=True)["series-0"])
    assert light != dark
    assert figure["data"][0]["line"]["color"] == "--series-0"


def test_error_bars_end_at_the_interval() -> None:
    system = System(name="a", role="main", metrics={"recall@10": Interval(mean=0.5, low=0.4, high=0.8)})
    bar = charts.dots([system], "recall@10")["data"][0]["error_x"]
    assert bar["array"] == [pytest.approx(0.3)]
    assert bar["arrayminus"] == [pytest.approx(0.1)]


def test_an_interval_without_ends_is_a_dot_alone() -> None:
    system = System(name="a", role="main", metrics={"recall@10": Interval(mean=0.5)})
    bar = charts.dots([system], "recall@10")["data"][0]["error_x"]
    assert bar["array"] == bar["arrayminus"] == [0.0]


def test_systems_without_a_value_are_left_out() -> None:
    systems = [System(name="a", metrics={"recall@10": Interval(mean=None)}), System(name="b", metrics={"recall@10": Interval(mean=0.1)})]
    figure = charts.dots(systems, "recall@10")
    assert [trace["y"] for trace in figure["data"]] == [[1]]
    assert figure["layout"]["yaxis"]["ticktext"] == ["b"]
    assert charts.dots(systems[:1], "recall@10") is None
    assert charts.over_cutoffs(systems[:1], "recall", (10,)) is None


def test_a_frontier_of_one_point_is_no_curve_and_more_are_in_order() -> None:
    points = [FrontierPoint(weight=w, n=5, metrics={"recall": {"mean": 1 - w}, "diversity": {"mean": w}}) for w in (0.5, 0.0)]
    assert charts.frontier(points[:1], "diversity@5", "recall@5") is None
    assert charts.frontier(points, "diversity@5", "recall@5")["data"][0]["x"] == [0.0, 0.5]


def test_a_frontier_of_several_builders_is_a_line_each_with_the_own_lists_ringed() -> None:
    places = [("mmr", 0.0), ("dpp", 0.0), ("mmr", 0.5), ("dpp", 0.5), ("ssd", 0.5)]
    points = [
        FrontierPoint(
            builder=name, weight=w, n=5, chosen=(name, w) == ("dpp", 0.5), metrics={"recall": {"mean": w}, "diversity": {"mean": w}}
        )
        for name, w in places
    ]
    lines = charts.frontier(points, "diversity@5", "recall@5")["data"]
    assert [line["name"] for line in lines] == ["mmr", "dpp"]
    assert [line["marker"]["size"] for line in lines] == [[9, 9], [9, 18]]
    assert all(bar == 0 for bar in lines[0]["error_y"]["array"])
    assert len({line["marker"]["color"] for line in lines}) == 2


def test_training_keeps_each_curve_to_its_own_steps() -> None:
    curve = TrainingCurve(points=(TrainingPoint(step=1, loss=3.0), TrainingPoint(step=2, validation=0.5)))
    loss, validation = interest_charts.training(curve)["data"]
    assert (loss["x"], loss["y"]) == ([1], [3.0])
    assert (validation["x"], validation["y"]) == ([2], [0.5])
    assert interest_charts.training(TrainingCurve(points=(TrainingPoint(step=1),))) is None


def test_json_for_a_script_element_holds_no_mark_that_could_end_it() -> None:
    text = plots.chart_json({"name": "</script>&\u2028\u2029"})
    assert text == '{"name":"\\u003c/script\\u003e\\u0026\\u2028\\u2029"}'
    assert json.loads(text) == {"name": "</script>&\u2028\u2029"}


def test_names_that_are_cut_to_the_same_length_keep_their_own_line() -> None:
    systems = [System(name="x" * 60 + end, metrics={"recall@10": Interval(mean=0.1)}) for end in "ab"]
    assert [trace["y"] for trace in charts.dots(systems, "recall@10")["data"]] == [[0], [1]]


def test_what_turns_the_direction_of_writing_is_shown_as_what_it_is() -> None:
    assert plots.label("a\u202eb\x00c") == "a\ufffdb\ufffdc"
    assert len(plots.label("y" * 500)) == 40


def test_a_map_of_many_categories_names_the_largest_and_gathers_the_rest() -> None:
    categories = [{"category": f"c{n}", "items": 9 - n, "together": 0.5, "by_chance": 0.1} for n in range(9)]
    points = [MapPoint(kind="item", x=n, y=n, label="t", category=f"c{n}") for n in range(9)] + [MapPoint(kind="item", x=0, y=0, label="u")]
    drawn = interest_charts.item_map(ItemMap(points=tuple(points), categories=categories))
    assert [trace["name"] for trace in drawn["data"]] == [*(f"c{n}" for n in range(6)), "other categories"]
    assert len(drawn["data"][-1]["x"]) == 4
    assert len({(trace["marker"]["symbol"], trace["marker"]["color"]) for trace in drawn["data"]}) == 7
    assert interest_charts.item_map(ItemMap()) is None


def test_slices_of_a_system_that_lacks_one_leave_a_gap(content: ReportContent) -> None:
    main, other = content.results.systems
    drawn = charts.slices([main, other.model_copy(update={"slices": other.slices[:1]})], "users")
    assert [trace["name"] for trace in drawn["data"]] == ["base plain", "plain"]
    assert drawn["data"][0]["x"] == [None, None]
    assert drawn["data"][1]["x"] == [0.3, 0.3]
    assert charts.slices([System(name="a")], "users") is None
    assert charts.slices([], "users") is None
