"""A full report to render, and an evil one."""

import pytest

from retrieval.evaluation.bootstrap import Interval
from retrieval.evaluation.measurements import Comparison
from retrieval.report.content import (
    DataSummary,
    FrontierPoint,
    HealthFigure,
    InterestSummary,
    ReportContent,
    Results,
    RunRecord,
    SampleInterest,
    SampleItem,
    SampleUser,
    StageRecord,
    System,
    TrainingCurve,
    TrainingPoint,
)

EVIL = "</script><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)> \" ' & | `x` \u2028 $y$"


def _around(mean: float, half: float = 0.01) -> Interval:
    return Interval(mean=mean, low=mean - half, high=mean + half)


def _system(name: str, role: str, recall: float) -> System:
    metrics = {f"recall@{n}": _around(recall * n / 50) for n in (10, 50)} | {"diversity@50": _around(0.6), "novelty@50": _around(11.5)}
    return System(name=name, role=role, metrics=metrics, overall={"coverage@50": 0.4, "gini@50": None})


def build_content(text: str) -> ReportContent:
    """A report with every part, and `text` wherever text can come from a log or a recipe."""
    users = SampleUser(
        user=text,
        history=(text, None),
        interests=(SampleInterest(number=0, nearest=(text, None)),),
        items=(SampleItem(rank=1, title=text, category=text, interest=0, score=1.5, hit=True), SampleItem(rank=2)),
    )
    difference = Comparison(users=90, differences={"recall@50": _around(0.1), "novelty@50": Interval(mean=None)})
    return ReportContent(
        title=text,
        created="2024-01-02 03:04 UTC",
        results=Results(
            cutoffs=(10, 50),
            users=90,
            systems=(_system(text, "main", 0.3), _system(f"base {text}", "baseline", 0.2)),
            comparisons={f"base {text}": difference},
        ),
        frontier=tuple(
            FrontierPoint(weight=w, n=50, chosen=w == 0, metrics={"recall": _around(0.3 - w / 10), "diversity": _around(0.6 + w / 5)})
            for w in (0.0, 0.5, 1.0)
        ),
        interests=InterestSummary(
            health=(HealthFigure(label=text, value=0.2, meaning=text, good=text, at_most=0.5),), sample_users=(users,)
        ),
        training=TrainingCurve(metric=text, points=(TrainingPoint(step=1, loss=2.0), TrainingPoint(step=2, loss=1.0, validation=0.1))),
        data=DataSummary(name=text, users=90, items=1234, events=56789, first_event=text, quarantine={text: 3}),
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
