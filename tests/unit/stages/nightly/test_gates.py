"""Gates: what holds, what fails, what has nothing to judge, and who said that it may."""

import datetime as dt
from itertools import zip_longest

import polars as pl
import pytest

from retrieval.core.errors import QualityGateError, UsageError
from retrieval.evaluation.comparison import Comparison, Difference
from retrieval.evaluation.health import InterestHealth
from retrieval.stages.nightly import gates
from retrieval.stages.nightly.day import DayProfile, drift
from retrieval.stages.nightly.past import Past
from retrieval.stages.nightly.settings import DataGates, ListGates, ModelGates


def day(events: int, hours: dict[str, int] | None = None, on: str = "2024-01-01", bad: dict[str, int] | None = None) -> DayProfile:
    counts = {"hour": hours or {f"{hour:02d}": events for hour in range(24)}}
    return DayProfile(day=on, events=events, users=1, items=1, total_events=events, quarantined=bad or {}, counts=counts)


def after(*days: DayProfile, figures: tuple[float, ...] = ()) -> Past:
    """What good nights have handed on."""
    past = Past()
    for each, figure in zip_longest(days, figures):
        past = past.after(each, figure, "recall@50", (), anew=False)
    return past


@pytest.mark.parametrize(("events", "outcome"), [(499, "failed"), (500, "held"), (2000, "held"), (2001, "failed")])
def test_volume_against_the_last_good_day(events: int, outcome: str) -> None:
    assert gates.volume_gate(DataGates(), day(events), after(day(1000))).outcome == outcome


def test_a_day_without_events_fails_even_where_nothing_is_published() -> None:
    assert gates.volume_gate(DataGates(), day(0), Past()).outcome == "failed"
    assert gates.drift_gate(DataGates(), day(0), None).outcome == "not judged"


def test_a_day_that_was_let_through_is_no_measure_for_later_ones() -> None:
    """A broken feed stays broken until it recovers, and not the other way round."""
    past = after(day(10_000)).after(day(100, on="2024-01-02"), 0.3, "", ["volume"], anew=False)
    assert [gates.volume_gate(DataGates(), day(events), past).outcome for events in (100, 10_000)] == ["failed", "held"]
    assert past.day == day(10_000)
    assert (past.read, past.quarantined) == ("2024-01-02", {})
    normal = past.after(day(100, on="2024-01-03"), 0.3, "", ["volume"], anew=True)
    assert [gates.volume_gate(DataGates(), day(events), normal).outcome for events in (100, 10_000)] == ["held", "failed"]


def test_a_log_that_loses_half_of_itself_every_night_is_seen() -> None:
    days = [day(10_000 >> night, on=f"2024-01-{1 + night:02d}") for night in range(8)]
    outcomes = [gates.volume_gate(DataGates(), days[night], after(*days[:night])).outcome for night in range(1, 8)]
    assert outcomes[:2] == ["held", "failed"]


def test_a_log_that_loses_a_twentieth_of_itself_every_night_is_seen() -> None:
    past, held = Past(), 0
    for night in range(60):
        today = day(round(10_000 * 0.95**night), on=f"2024-{1 + night // 28:02d}-{1 + night % 28:02d}")
        if gates.volume_gate(DataGates(), today, past).outcome == "failed":
            break
        past, held = past.after(today, None, "", (), anew=False), night
    assert 10 < held < 40
    assert len(past.volumes) <= 28


@pytest.mark.parametrize(
    ("bad", "outcome"),
    [({}, "held"), ({"late_time": 100}, "held"), ({"late_time": 150}, "held"), ({"late_time": 151}, "failed"), ({"no_user": 60}, "failed")],
)
def test_rows_that_are_newly_bad_are_a_share_of_the_new_ones(bad: dict[str, int], outcome: str) -> None:
    """Of a thousand new rows fifty may be bad, however long the log is, and however many old ones are no longer in it."""
    found = gates.bad_gate(DataGates(), day(900, bad=bad), after(day(1000, bad={"late_time": 100})), 1000, 0.01)
    assert found.outcome == outcome
    assert gates.bad_gate(DataGates(), day(900, bad=bad), Past(), 1000, 0.01).outcome == "not judged"


def test_ids_of_another_type_and_of_other_people_fail() -> None:
    now = {"users": pl.Series(range(100)), "items": pl.Series(["a", "b"])}
    for users, outcome in (
        (pl.Series(range(50, 150)), "held"),
        (pl.Series(range(99, 199)), "failed"),
        (pl.Series([str(user) for user in range(100)]), "failed"),
    ):
        gate = gates.ids_gate(DataGates(), now, {"users": users, "items": now["items"]})
        assert gate.outcome == outcome
    assert "Int64 ids, were String" in gate.found
    assert gates.ids_gate(DataGates(), now, {}).outcome == "not judged"


def test_half_a_day_is_drift_and_a_quiet_day_is_not() -> None:
    whole = {f"{hour:02d}": 1000 for hour in range(24)}
    half = {f"{hour:02d}": 1000 for hour in range(12)}
    quiet = {f"{hour:02d}": 2 + hour % 2 for hour in range(24)}
    assert gates.drift_gate(DataGates(), day(12000, half), day(24000, whole)).outcome == "failed"
    assert gates.drift_gate(DataGates(), day(60, quiet), day(24000, whole)).outcome == "held"


def test_drift_is_that_of_the_definition() -> None:
    # Shares (1, 0) and (0, 1): one bit; equal ones: none.
    assert drift({"a": 10**9}, {"b": 10**9}) == pytest.approx(1.0, abs=1e-6)
    assert drift({"a": 5, "b": 5}, {"a": 500, "b": 500}) == 0.0
    assert drift({}, {"a": 1}) == 1.0
    # By hand for (3/4, 1/4) against (1/4, 3/4): H(1/2, 1/2) - H(3/4, 1/4) = 1 - 0.8112781.
    assert drift({"a": 3 * 10**9, "b": 10**9}, {"a": 10**9, "b": 3 * 10**9}) == pytest.approx(0.1887219, abs=1e-6)


def against(mean: float, low: float, high: float, shows: float = 0.002) -> Comparison:
    return Comparison(users=100, differences={"recall@50": Difference(mean=mean, low=low, high=high)}, detectable={"recall@50": shows})


@pytest.mark.parametrize(
    ("interval", "outcome"),
    [((-0.01, -0.02, 0.001), "held"), ((-0.02, -0.03, -0.006), "failed"), ((-0.004, -0.0045, -0.0035), "held"), ((0.1, 0.05, 0.2), "held")],
)
def test_recall_fails_where_more_than_the_margin_is_surely_lost(interval: tuple[float, float, float], outcome: str) -> None:
    """One hundredth of some .4 may go."""
    found = gates.recall_gate(ModelGates(), "recall@50", 0.4, against(*interval), "")
    assert found.outcome == outcome


def test_users_who_would_not_show_a_loss_do_not_judge() -> None:
    """Twenty users whose interval reaches from -60 % to nothing hold no gate; a loss that even they show fails it."""
    blind = gates.recall_gate(ModelGates(), "recall@50", 0.35, against(-0.1, -0.22, 0.01, shows=0.16), "")
    assert blind.outcome == "not judged"
    assert "they show a loss only from 0.1600 on" in blind.found
    assert gates.recall_gate(ModelGates(), "recall@50", 0.35, against(-0.2, -0.3, -0.1, shows=0.16), "").outcome == "failed"
    alone = Comparison(users=1, differences={"recall@50": Difference(mean=0.0, low=0.0, high=0.0)})
    assert gates.recall_gate(ModelGates(), "recall@50", 0.35, alone, "").outcome == "not judged"


def test_a_model_that_loses_a_hundredth_every_night_is_seen() -> None:
    """Each night's loss is within its margin; together they are a quarter in a month."""
    past = Past()
    for night in range(30):
        mean = 0.4 * 0.99**night
        if gates.primary_gate(ModelGates(), "recall@50", mean, past.figure("recall@50")).outcome == "failed":
            break
        past = past.after(day(100, on=f"2024-{1 + night // 28:02d}-{1 + night % 28:02d}"), mean, "recall@50", (), anew=False)
    assert 14 < night < 25
    assert past.figure("ndcg@50") is None
    assert past.after(day(100), 0.1, "recall@50", ["recall"], anew=False).figures == past.figures


def test_one_lucky_night_is_no_measure() -> None:
    nights = [day(100, on=f"2024-01-{number:02d}") for number in range(1, 9)]
    assert after(*nights, figures=(0.4, 0.4, 0.4, 0.9, 0.4, 0.4, 0.4, 0.4)).figure("recall@50") == 0.4


def test_without_a_published_model_recall_says_so() -> None:
    assert gates.recall_gate(ModelGates(), "recall@50", 0.4, None, "nothing is published").found == "nothing is published"


def health(**changes: object) -> InterestHealth:
    values = {
        "users": 10,
        "mean_valid_interests": 3.0,
        "pairwise_cosine": 0.3,
        "effective_rank": 2.5,
        "routing_entropy": None,
        "positive_shares": [0.5, 0.3, 0.2],
        "overlap": 0.1,
        "contributing": 2.0,
        "near_pairs": [],
    }
    return InterestHealth.model_validate({**values, **changes})


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, "held"),
        ({"pairwise_cosine": 0.97}, "failed"),
        ({"effective_rank": 1.01}, "failed"),
        ({"positive_shares": [1.0, 0.0, 0.0, 0.0, 0.0]}, "failed"),
        ({"pairwise_cosine": None}, "not judged"),
    ],
)
def test_collapsed_interests_fail(changes: dict, outcome: str) -> None:
    assert gates.interests_gate(ModelGates(), health(**changes)).outcome == outcome


def test_a_leak_closes_the_gate() -> None:
    assert gates.leaks_gate(0, "No leak: 9 kinds were looked for.").outcome == "held"
    leaky = gates.leaks_gate(2, "2 of 9 kinds of leaks were found: event-after-cut, target-retimed.")
    assert leaky.outcome == "failed"
    assert "event-after-cut" in leaky.found


def test_lists() -> None:
    lists = ListGates()
    assert [gates.overlap_gate(lists, value).outcome for value in ([0.01], [0.0, 0.04], [1.0])] == ["failed", "held", "held"]
    assert [gates.overlap_gate(lists, value).outcome for value in ([], None)] == ["failed", "not judged"]
    summary = {"users": 100, "users_with_a_list": 99, "lists_shorter_than_n": 6}
    assert [gate.outcome for gate in gates.length_gates(lists, summary)] == ["failed", "failed"]
    summary = {"users": 100, "users_with_a_list": 100, "lists_shorter_than_n": 5}
    assert [gate.outcome for gate in gates.length_gates(lists, summary)] == ["held", "held"]
    assert [gates.coverage_gate(lists, night, 0.5).outcome for night in (0.24, 0.25)] == ["failed", "held"]
    assert gates.latency_gate(lists, 0.0031, 0.001).outcome == "failed"
    assert gates.latency_gate(lists, 0.0029, 0.001).outcome == "held"
    assert gates.latency_gate(lists, 10.0, None).outcome == "not judged"
    assert gates.latency_gate(ListGates(max_wait="5ms"), 0.006, 1.0).outcome == "failed"
    assert gates.latency_gate(lists, None, 0.001).outcome == "failed"


def test_the_index_is_judged_by_what_build_index_measured() -> None:
    assert [gates.ann_gate(ModelGates(), {"gate": {"recall": value}}).outcome for value in (0.89, 0.9)] == ["failed", "held"]


def test_an_older_night_does_not_replace_a_newer_one() -> None:
    assert gates.date_gate(dt.date(2024, 1, 1), "2024-01-02").outcome == "failed"
    assert gates.date_gate(dt.date(2024, 1, 2), "2024-01-02").outcome == "held"


def test_an_override_says_who_and_why_and_leaves_the_others() -> None:
    found = gates.overridden(
        [gates.judged("volume", 0.1, "more", held=False), gates.judged("drift", 0.9, "less", held=False)], {"volume": "holiday"}
    )
    assert [(gate.outcome, gate.why, bool(gate.who), bool(gate.at)) for gate in found] == [
        ("overridden", "holiday", True, True),
        ("failed", "", False, False),
    ]
    with pytest.raises(QualityGateError, match=r"gate drift: 0\.9.*--override"):
        gates.require_held(found, "night")
    gates.require_held(found[:1], "night")


@pytest.mark.parametrize(("text", "said"), [("volme=x", "did you mean 'volume'"), ("volume", "nobody will know why"), ("volume= ", "why")])
def test_an_override_needs_a_gate_and_a_reason(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        gates.parse_overrides([text])
