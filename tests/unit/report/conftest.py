"""A full report to render, an evil one, and users to explain."""

import pytest

from retrieval.evaluation.bootstrap import Interval
from retrieval.evaluation.comparison import Comparison, Difference
from retrieval.evaluation.contribution import InterestShare
from retrieval.evaluation.rescoring import RescoringCost, RescoringGain
from retrieval.evaluation.slices import Slice
from retrieval.report.compared import CompareContent, ComparedSystem, MovedUser, Pair, SettingDifference, SideBySide, SideItem, SliceRow
from retrieval.report.content import (
    CategoryNeighbours,
    DataSummary,
    FrontierPoint,
    HealthFigure,
    IndexCandidate,
    IndexQuality,
    InterestSummary,
    ItemMap,
    MapPoint,
    ReportContent,
    RescoringSummary,
    Results,
    RunRecord,
    StageRecord,
    System,
    TrainingCurve,
    TrainingPoint,
)
from retrieval.report.explained import CategoryHistory, ExplainedInterest, ExplainedUser, GalleryContent, ListedItem, NamedItem

EVIL = (
    "</script><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)><svg/onload=alert(3)> \" ' & | `x` ](javascript:a) "
    "\u2028 $y$ {{7*7}} \u202egnp.exe\u202c \x07\x1b[31m \x00 @everyone www.evil.example"
)


def _around(mean: float, half: float = 0.01) -> Interval:
    return Interval(mean=mean, low=mean - half, high=mean + half)


def _system(name: str, role: str, recall: float) -> System:
    metrics = {f"{family}@{n}": _around(recall * n / 50) for family in ("recall", "ndcg") for n in (10, 50)}
    metrics |= {"diversity@50": _around(0.6), "novelty@50": _around(11.5)}
    parts = [("users", "user age", name), ("users", "user age", "known"), ("targets", "target category", name)]
    slices = tuple(
        Slice(about=about, dimension=dimension, value=value, users=9, few=value == name, metrics={"recall@50": _around(recall)})
        for about, dimension, value in parts
    )
    shares = [InterestShare(interest=k, n=50, places=10, hits=k, share_of_places=0.5, share_of_hits=k / 1.0) for k in (0, 1)]
    return System(
        name=name,
        role=role,
        metrics=metrics,
        slices=slices,
        interests=tuple(shares),
        overall={"coverage@50": _around(0.4), "gini@50": Interval(mean=None)},
    )


def build_user(text: str) -> ExplainedUser:
    item = NamedItem(item_id=text, title=text, category=text)
    listed = [ListedItem(**item.model_dump(), rank=1, score=1.5, interest=0, hit=True, rank_by_score=2, driven_by=(text, text))]
    listed += [ListedItem(item_id=7, title="seven", rank=2, score=0.0, interest=-1, hit=False)]
    return ExplainedUser(
        user=text,
        events=3,
        targets=2,
        history=(item,),
        categories=(CategoryHistory(category=text, events=2, newest=(text,)), CategoryHistory(category=None, events=1)),
        interests=(
            ExplainedInterest(interest=0, items=1, nearest=(item,), drivers=(item,)),
            ExplainedInterest(interest=1, items=0, drivers_by="similarity"),
        ),
        items=tuple(listed),
        by_score=(listed[1].model_copy(update={"rank": 1, "interest": 0}),),
    )


def build_map(text: str) -> ItemMap:
    points = [MapPoint(kind="item", x=float(n), y=-float(n), label=text, category=text if n < 3 else None) for n in range(5)]
    points += [
        MapPoint(kind="history", x=0.5, y=0.5, label=text, category=text),
        MapPoint(kind="interest", x=1.0, y=1.0, label="interest 0"),
    ]
    return ItemMap(
        user=text,
        items=5,
        catalog=9,
        perplexity=1.5,
        points=tuple(points),
        categories=(CategoryNeighbours(category=text, items=3, together=0.5, by_chance=0.4),),
    )


def build_content(text: str) -> ReportContent:
    """A report with every part, and `text` wherever text can come from a log or a recipe."""
    differences = {"recall@50": Difference(mean=0.1, low=0.09, high=0.11), "novelty@50": Difference(mean=None)}
    difference = Comparison(users=90, differences=differences)
    frontier = [
        FrontierPoint(
            weight=w,
            builder=builder,
            n=50,
            chosen=w == 0 and builder == "mmr",
            metrics={"recall": _around(0.3 - w / 10), "ndcg": _around(0.2 - w / 10), "diversity": _around(0.6 + w / 5)},
        )
        for builder in ("category_greedy", "mmr")
        for w in (0.0, 0.5, 1.0)
    ]
    figure = HealthFigure(label=text, value=0.2, meaning=text, good=text, at_most=0.5)
    watched = {"effective_rank": 1.5, "interest_cosine": 0.2}
    return ReportContent(
        title=text,
        created="2024-01-02 03:04 UTC",
        results=Results(
            cutoffs=(10, 50),
            users=90,
            systems=(_system(text, "main", 0.3), _system(f"base {text}", "baseline", 0.2)),
            comparisons={f"base {text}": difference},
        ),
        frontier=tuple(frontier),
        interests=InterestSummary(health=(figure,), findings=(text,), item_map=build_map(text), sample_users=(build_user(text),)),
        training=TrainingCurve(
            metric=text,
            points=(TrainingPoint(step=1, loss=2.0, health=watched), TrainingPoint(step=2, loss=1.0, validation=0.1, health=watched)),
        ),
        index=IndexQuality(
            factory="IVF8,Flat",
            items=1234,
            dimension=16,
            n=100,
            recall=0.95,
            lower_bound=0.94,
            queries=256,
            setting="index.choose.target_recall",
            wanted=0.9,
            held=True,
            bytes=123_456_789,
            candidates=(
                IndexCandidate(name="exact", recall=1.0, lower_bound=1.0, seconds=1e-4, memory_bytes=1e6, verdict="holds"),
                IndexCandidate(name="IVF8,Flat nprobe=2", recall=0.95, lower_bound=0.94, seconds=1e-5, memory_bytes=1e6, verdict="chosen"),
                IndexCandidate(name="never built", verdict=text),
            ),
        ),
        data=DataSummary(
            name=text,
            users=90,
            items=1234,
            events=56789,
            first_event=text,
            protocol="comirec",
            split={"test_users": 9},
            events_of_a_user={"median": 7, "mean": 8.125},
            quarantine={text: 3},
            filtered={"rare": 2},
        ),
        rescoring=RescoringSummary(
            name=text,
            gain=RescoringGain(
                primary="recall@50",
                recalled={"recall@50": _around(0.2)},
                rescored={"recall@50": _around(0.3)},
                comparison=difference,
                cost=RescoringCost(users=9, recall=0.2, rescoring=4.8),
            ),
            metric="recall@50",
            watched=9,
            watched_rescored=0.2,
            watched_recalled=0.2,
        ),
        run=RunRecord(
            stages=(StageRecord(stage=text, seconds=75.0, peak_memory_bytes=1_250_000_000, artifact=text),),
            config={"data": {"name": text}, "empty": {}, "list": [1, text]},
            hashes={text: text},
        ),
    )


@pytest.fixture
def content() -> ReportContent:
    return build_content("plain")


@pytest.fixture
def evil() -> str:
    return EVIL


@pytest.fixture
def evil_content() -> ReportContent:
    return build_content(EVIL)


@pytest.fixture
def gallery() -> GalleryContent:
    return GalleryContent(title="gallery", users=(build_user("plain"), build_user(EVIL)), diversity="mmr, lambda 0.5")


def build_comparison(text: str) -> CompareContent:
    """Three runs, `text` wherever it can come from a log or from whoever named a run."""
    names = (text, f"other {text}", "third")
    difference = Difference(mean=0.1, low=0.05, high=0.15, p=0.001, adjusted=0.002)
    comparison = Comparison(
        users=90, differences={"recall@50": difference, "diversity@50": Difference(mean=0.0, low=-0.1, high=0.1, p=0.9)}
    )
    moved = MovedUser(user=text, first=0.0, other=1.0)
    items = tuple(SideItem(item_id=n, title=text, category=text, rank=n, hit=n == 2, elsewhere=n if n == 1 else None) for n in (1, 2, 9))
    pairs = [
        Pair(
            name=name,
            comparison=comparison,
            gained=2,
            lost=1,
            same=3,
            common=0.5,
            common_users=6,
            most_gained=(moved,),
            most_lost=(MovedUser(user=7, first=1.0, other=0.5),),
            lists=(SideBySide(moved=moved, targets=1, first=items, other=items[:2]),),
        )
        for name in names[1:]
    ]
    row = SliceRow(
        dimension=text,
        value=text,
        users=3,
        few=True,
        metric="recall@50",
        means={name: _around(0.2) for name in names},
        differences={names[1]: difference},
        winner=names[1],
    )
    return CompareContent(
        title=text,
        users=90,
        systems=tuple(ComparedSystem(name=name, artifact="measurements/1", metrics=_system(name, "main", 0.2).metrics) for name in names),
        pairs=tuple(pairs),
        settings=(SettingDifference(name="model.name", values=(text, None, "x")),),
        slices=(row,),
    )


@pytest.fixture
def comparison() -> CompareContent:
    return build_comparison("plain")


@pytest.fixture
def evil_comparison() -> CompareContent:
    return build_comparison(EVIL)
