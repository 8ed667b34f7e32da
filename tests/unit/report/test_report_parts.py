"""Slices and interests in a report: beside the baselines, few users in words, nothing where nothing was measured."""

from retrieval.evaluation.bootstrap import Interval
from retrieval.evaluation.comparison import Comparison, Difference
from retrieval.evaluation.contribution import InterestShare
from retrieval.evaluation.slices import Slice
from retrieval.report.content import ReportContent, Results, System
from retrieval.report.markdown import render_markdown
from retrieval.report.part_sections import contribution, slices
from retrieval.report.report_page import key_figures, report_page
from retrieval.report.verdict import comparison


def part(value: str, mean: float, users: int, about: str = "users", dimension: str = "age") -> Slice:
    metrics = {"recall@50": Interval(mean=mean, low=mean - 0.1, high=mean + 0.1)}
    return Slice.model_validate(
        {"about": about, "dimension": dimension, "value": value, "users": users, "few": users < 100, "metrics": metrics}
    )


def share(interest: int, places: int, hits: int, n: int = 50) -> InterestShare:
    return InterestShare(interest=interest, n=n, places=places, hits=hits, share_of_places=places / 100, share_of_hits=hits / 10)


def content(**main: object) -> ReportContent:
    systems = (System(name="mine", role="main", **main), System(name="markov", slices=(part("<b>young</b>", 0.2, 500),)))
    return ReportContent(results=Results(primary="recall@50", systems=systems))


def test_every_system_stands_in_every_slice_and_few_users_are_named() -> None:
    parts = (part("<b>young</b>", 0.4, 500), part("old", 0.3, 7), part("tail", 0.1, 400, "targets", "target popularity"))
    tables = slices(content(slices=parts)).tables
    assert [table.caption for table in tables] == ["recall@50 by age of users", "recall@50 by target popularity, of these targets alone"]
    young, old = tables[0].rows
    assert [cell.text for cell in young] == ["<b>young</b>", "500", "0.4000", "0.2000"]
    assert old[0].small == "only 7 users: too few to tell"
    assert (old[2].tone, old[3].text) == ("quiet", "-")
    assert "&lt;b&gt;young" in render_markdown(report_page(content(slices=parts)))


def test_interests_are_shown_at_the_primary_cutoff() -> None:
    (table,) = contribution(content(interests=(share(0, 75, 9), share(1, 25, 1), share(0, 10, 5, n=10)))).tables
    assert [[cell.text.replace("\u00a0", " ") for cell in row] for row in table.rows] == [
        ["0", "75.0 %", "90.0 %", "9", "12.0 %"],
        ["1", "25.0 %", "10.0 %", "1", "4.0 %"],
    ]
    assert contribution(content(interests=(share(0, 100, 10),))).note == "There is one interest, which brings all."
    assert slices(content()).note == "No slice was measured."


def test_the_verdict_says_what_these_users_can_show() -> None:
    found = {"popular": Comparison(users=9, differences={"recall@50": Difference(mean=0.2, low=0.1, high=0.3, p=0.2, adjusted=0.2)})}
    results = Results(comparisons=found, detectable="This set can show a difference of 0.40 points of recall@50 (80 % power).")
    sentence = comparison(results)
    # An interval clear of zero is not enough where the test says no.
    assert "cannot be told apart from popular" in sentence
    assert sentence.endswith("; this set can show a difference of 0.40 points of recall@50 (80 % power).")


def test_coverage_among_the_key_figures_has_its_interval() -> None:
    main = System(name="sa", role="main", overall={"coverage@50": Interval(mean=0.4, low=0.3, high=0.5)})
    ((name, cell),) = key_figures(ReportContent(results=Results(systems=(main,))))
    assert (name, cell.text, cell.small) == ("coverage@50", "0.4000", "0.3000 to 0.5000, of the catalog")
