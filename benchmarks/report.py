"""CPU milliseconds of what a report adds to a run: the frontier of every list builder, the map, the page; and the page's size.

    taskset -c 1 python benchmarks/report.py

Pools, vectors and titles are drawn: 2,000 users with pools of 200 for lists of 100, four interests of 64 dimensions, items in 40
clusters that are their categories. Medians of three runs of process time, threads set to one.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

USERS, ITEMS, POOL, LENGTH, DIMENSION, CATEGORIES, INTERESTS, HISTORY = 2_000, 20_000, 200, 100, 64, 40, 4, 50


def median_of(runs: int, work: Callable[[], object]) -> float:
    work()  # compiles what is compiled
    found = []
    for _ in range(runs):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return statistics.median(found)


def make_vectors(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    codes = random.integers(0, CATEGORIES, ITEMS).astype(np.int32)
    centres = random.standard_normal((CATEGORIES, DIMENSION))
    return (centres[codes] + 0.7 * random.standard_normal((ITEMS, DIMENSION))).astype(np.float32), codes


def frontier_figures(random: np.random.Generator, runs: int) -> None:
    from retrieval.evaluation.settings import EvaluationSettings
    from retrieval.index.pools import Pools, Seen
    from retrieval.recall.context import Labels, ListContext, SearchedInterests
    from retrieval.recall.lists import lists_over_lambdas
    from retrieval.recall.settings import RecallSettings

    vectors, codes = make_vectors(random)
    interests = vectors[random.integers(0, ITEMS, (USERS, INTERESTS))]
    rows = np.argsort(random.random((USERS, ITEMS), dtype=np.float32), axis=1)[:, :POOL].astype(np.int64)
    scores = np.einsum("ukd,upd->ukp", interests, vectors[rows])
    order = np.argsort(-scores.max(axis=1), axis=1)
    best = (np.take_along_axis(each, order, axis=1) for each in (rows, scores.max(axis=1), scores.argmax(axis=1).astype(np.int32)))
    pools = Pools(*best)
    past = Seen(np.arange(USERS + 1, dtype=np.int64) * HISTORY, random.integers(0, ITEMS, USERS * HISTORY).astype(np.int32))
    labels = Labels(np.arange(ITEMS + 1, dtype=np.int64), codes, CATEGORIES)
    context = ListContext(codes, labels, vectors, past, SearchedInterests(interests, np.ones((USERS, INTERESTS), dtype=bool)))
    settings, total = EvaluationSettings(), 0.0
    for name in settings.frontier_builders:
        recall = RecallSettings(n=LENGTH, pool=POOL, diversity=name, threads=1)
        spent = median_of(runs, lambda recall=recall: list(lists_over_lambdas(pools, context, recall, settings.frontier_lambdas)))
        total += spent
        print(f"lists by {name} at {len(settings.frontier_lambdas)} lambdas: {1e3 * spent / USERS:.3f} ms a user")
    print(f"lists of the whole frontier: {1e3 * total / USERS:.2f} ms a user, {total / USERS * settings.frontier_users:.0f} s at the most")


def page_figures(random: np.random.Generator, runs: int) -> None:
    from retrieval.evaluation.projection import same_category_share, tsne
    from retrieval.report.content import InterestSummary, ItemMap, MapPoint, ReportContent
    from retrieval.report.page import render_html
    from retrieval.report.report_page import report_page

    vectors, codes = make_vectors(random)
    for count in (1000, 5000):
        mapped = median_of(1, lambda count=count: tsne(vectors[:count], 0, threads=1))
        near = median_of(runs, lambda count=count: same_category_share(vectors[:count], codes[:count]))
        points = [
            MapPoint(kind="item", x=float(x), y=float(y), label=f"a title of thirty letters {n:4d}")
            for n, (x, y) in enumerate(vectors[:count, :2])
        ]
        content = ReportContent(interests=InterestSummary(item_map=ItemMap(points=tuple(points))))
        drawn = median_of(runs, lambda content=content: render_html(report_page(content)))
        size = len(render_html(report_page(content)).encode())
        print(f"map of {count} items: t-SNE {mapped:.1f} s, neighbours {near:.2f} s, page {drawn:.2f} s and {size / 1e6:.2f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=3)
    chosen = parser.parse_args()
    frontier_figures(np.random.default_rng(0), chosen.runs)
    page_figures(np.random.default_rng(1), chosen.runs)
