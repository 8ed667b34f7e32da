"""Processor seconds and peak memory of measuring candidates, against ranx, RecTools and a loop over users.

    python benchmarks/evaluate.py                                   # 100,000 users x 100 candidates, rivals included
    python benchmarks/evaluate.py --rivals none --users 10000 100000 1000000
    python benchmarks/evaluate.py --rivals none --users 10000000 --depth 20 --only everything
    python benchmarks/evaluate.py --bootstrap                       # 10,000 resamples x 20 metrics on 100,000 users
    python benchmarks/evaluate.py --coverage                        # how often intervals hold a planted truth

Rivals are installed beside the project, torch stays as it is, and one that is absent is skipped:

    pip install --target RIVALS ranx 'numpy>=2'
    pip install --target RIVALS --no-deps rectools implicit typeguard attrs
    PYTHONPATH=RIVALS python benchmarks/evaluate.py

(RecTools would take a numpy below 2 with it, which pyarrow and polars do not run with.)

`everything` reads parquet and measures every metric at four cut-offs, slices, what interests bring, coverage and Gini, with 1,000
resamples, and writes the values of users to a file. `accuracy` is the six metrics that the rivals have, too, on tables in memory,
as they get them: what they do to their input (`Qrels.from_df`, joins) is part of their time. Every run is a process of its own, so that its
peak resident memory is its own. The values must agree, user means to 1e-6, wherever definitions do.
"""

import argparse
import importlib.util
import json
import multiprocessing
import tempfile
import time
from pathlib import Path

CUTOFFS = (10, 20, 50, 100)
TARGETS, SAMPLE, ITEMS, DIMENSION, HISTORY = 8, 2_000, 50_000, 64, 30
BLOCK = 250_000


def lists_of(random, users: int, depth: int):
    """Lists without repetition and targets, a half of them in the list: rows of items."""
    import numpy as np

    # A stride without a common factor with the number of items never meets an item twice.
    start = random.integers(0, ITEMS, (users, 1))
    stride = random.choice([number for number in range(1, ITEMS) if number % 2 and number % 5], (users, 1))
    reach = depth + 40
    rows = ((start + np.arange(reach) * stride) % ITEMS).astype(np.int32)
    return rows[:, :depth], np.take_along_axis(rows, random.integers(0, reach, (users, TARGETS)), axis=1)


def make_tables(folder: str, users: int, depth: int) -> None:
    """Part files of whole users, as recall writes them; the truth sorted by user."""
    import numpy as np
    import polars as pl
    import pyarrow.parquet as pq

    random, truth = np.random.default_rng(0), None
    for number, first in enumerate(range(0, users, BLOCK)):
        count = min(BLOCK, users - first)
        rows, targets = lists_of(random, count, depth)
        ids = np.arange(first, first + count) + 2**40
        ranks = np.tile(np.arange(1, depth + 1, dtype=np.int32), count)
        columns = {"user_id": np.repeat(ids, depth), "item_id": rows.ravel().astype(np.int64) * 7, "rank": ranks}
        columns["interest"] = (rows.ravel() % 4).astype(np.int32)
        pl.DataFrame(columns).write_parquet(f"{folder}/part-{number:05d}.parquet", row_group_size=1 << 18)
        table = pl.DataFrame({"user_id": np.repeat(ids, TARGETS), "item_id": targets.ravel().astype(np.int64) * 7}).to_arrow()
        truth = truth or pq.ParquetWriter(f"{folder}/truth.parquet", table.schema)
        truth.write_table(table)
    truth.close()
    categories = pl.Series([[f"c{number % 40}", f"d{number % 7}"] for number in range(ITEMS)])
    items = pl.DataFrame({"item_id": np.arange(ITEMS) * 7, "categories": categories, "events": random.integers(1, 1000, ITEMS)})
    items.write_parquet(f"{folder}/items.parquet")


def knowledge_of(folder: str, settings):
    """Categories, events, vectors, and histories that are a function of the user."""
    import numpy as np
    import polars as pl

    from retrieval.evaluation.facts import ItemFacts
    from retrieval.evaluation.metrics import Knowledge

    vectors = np.random.default_rng(1).standard_normal((ITEMS, DIMENSION)).astype(np.float32)

    def histories(users):
        ids = users.to_numpy()[:, None]
        return np.arange(len(ids) + 1) * HISTORY, ((ids * 31 + np.arange(HISTORY) * 17) % ITEMS).ravel().astype(np.int32)

    return Knowledge.of(ItemFacts.of(pl.read_parquet(f"{folder}/items.parquet"), settings).with_vectors(vectors), histories)


def labels_of(users: int, settings):
    import numpy as np
    import polars as pl

    from retrieval.evaluation.labels import user_labels

    ids = np.arange(users) + 2**40
    return user_labels(pl.DataFrame({"user_id": ids, "length": ids % 97, "country": (ids % 9).astype(str)}), settings.slices.values)


def everything(folder: str, users: int, depth: int) -> dict:
    from retrieval.core.resources import measured
    from retrieval.evaluation.evaluator import Evaluation
    from retrieval.evaluation.settings import EvaluationSettings
    from retrieval.evaluation.tables import FrameWriter

    cutoffs = tuple(n for n in CUTOFFS if n <= depth)
    settings = EvaluationSettings(cutoffs=cutoffs, primary=f"recall@{cutoffs[-1]}")
    with (
        measured() as usage,
        FrameWriter(Path(folder) / "values.parquet") as values,
        FrameWriter(Path(folder) / "slices.parquet") as slices,
    ):
        begun = time.process_time()
        evaluation = Evaluation(settings, knowledge_of(folder, settings), labels_of(users, settings))

        def write(frame, parts) -> None:
            values.write(frame)
            slices.write(parts)

        found = evaluation.run(sorted(Path(folder).glob("part-*")), Path(folder) / "truth.parquet", None, write)
        seconds = time.process_time() - begun
    figures = len(found.metrics) + len(found.overall) + sum(len(each.metrics) for each in found.slices)
    return {"figures": figures, "cpu_seconds": seconds, "seconds": usage.seconds, "peak_memory_mb": usage.peak_memory_bytes / 1e6}


def tables(folder: str, users: int | None = None):
    import polars as pl

    few = pl.lit(value=True) if users is None else pl.col("user_id") < 2**40 + users
    return tuple(pl.scan_parquet(f"{folder}/{name}").filter(few).collect() for name in ("part-*.parquet", "truth.parquet"))


def accuracy(folder: str) -> dict:
    import polars as pl

    from retrieval.evaluation.evaluator import evaluate
    from retrieval.evaluation.settings import EvaluationSettings
    from retrieval.evaluation.truth import ground_truth

    lists, truth = tables(folder)
    settings = EvaluationSettings(cutoffs=CUTOFFS, resamples=10)
    evaluate(lists.head(100), ground_truth(truth.head(8)), None, settings)
    begun = time.process_time()
    found = evaluate(lists, ground_truth(truth), None, settings)
    seconds = time.process_time() - begun
    few = found.per_user.head(SAMPLE).select(pl.exclude("user_id").mean()).row(0, named=True)
    return {"cpu_seconds": seconds, "means": {name: value.mean for name, value in found.summary.metrics.items()}, "first": few}


def ranx(folder: str) -> dict:
    """Ids are text there; they are made text before the clock starts."""
    import polars as pl
    from ranx import Qrels, Run, evaluate

    names = {"recall": "recall", "hr": "hit_rate", "precision": "precision", "ndcg": "ndcg", "mrr": "mrr", "map": "map"}
    wanted = {f"{theirs}@{n}": f"{ours}@{n}" for ours, theirs in names.items() for n in CUTOFFS}
    lists, truth = tables(folder)
    text = pl.col("user_id", "item_id").cast(pl.String)
    kinds = {"user_id": object, "item_id": object}
    run = lists.select(text, score=-pl.col("rank").cast(pl.Float64)).to_pandas().astype(kinds)
    known = truth.unique().select(text, score=pl.lit(1, pl.Int64)).to_pandas().astype(kinds)
    columns = ("user_id", "item_id", "score")
    # Compiles what it compiles.
    evaluate(Qrels.from_df(known.head(8), *columns), Run.from_df(run.head(100), *columns), ["recall@10"], make_comparable=True)
    begun = time.process_time()
    qrels, made = Qrels.from_df(known, *columns), Run.from_df(run, *columns)
    converted = time.process_time() - begun
    found = evaluate(qrels, made, list(wanted), make_comparable=True)
    seconds = time.process_time() - begun
    return {
        "cpu_seconds": seconds,
        "without_conversion": seconds - converted,
        "means": {wanted[name]: float(v) for name, v in found.items()},
    }


def rectools_accuracy(metrics) -> dict:
    made = {"recall": metrics.Recall, "hr": metrics.HitRate, "precision": metrics.Precision, "mrr": metrics.MRR, "map": metrics.MAP}
    wanted = {f"{name}@{n}": kind(k=n) for name, kind in made.items() for n in CUTOFFS}
    return wanted | {f"ndcg@{n}": metrics.NDCG(k=n, divide_by_achievable=True) for n in CUTOFFS}


def rectools(folder: str) -> dict:
    from rectools import Columns, metrics

    wanted = rectools_accuracy(metrics)
    names = {"user_id": Columns.User, "item_id": Columns.Item, "rank": Columns.Rank}
    lists, truth = (table.to_pandas().rename(columns=names) for table in tables(folder))
    truth = truth.drop_duplicates()
    begun = time.process_time()
    found = metrics.calc_metrics(wanted, reco=lists, interactions=truth)
    return {"cpu_seconds": time.process_time() - begun, "means": {name: float(value) for name, value in found.items()}}


def shared(folder: str) -> dict:
    """What RecTools measures, too, beyond accuracy."""
    import polars as pl

    from retrieval.evaluation.evaluator import evaluate
    from retrieval.evaluation.facts import ItemFacts
    from retrieval.evaluation.settings import EvaluationSettings
    from retrieval.evaluation.truth import ground_truth

    lists, truth = tables(folder, SAMPLE)
    items, settings = pl.read_parquet(f"{folder}/items.parquet"), EvaluationSettings(cutoffs=CUTOFFS, resamples=10)
    evaluate(lists.head(100), ground_truth(truth.head(8)), ItemFacts.of(items, settings), settings)
    begun = time.process_time()
    evaluate(lists, ground_truth(truth), ItemFacts.of(items, settings), settings)
    return {"cpu_seconds": time.process_time() - begun}


def rectools_shared(folder: str) -> dict:
    """Accuracy, surprise, popularity, coverage, and the distance of categories, for which it joins all pairs of a list."""
    import pandas as pd
    import polars as pl
    from rectools import Columns, metrics

    names = {"user_id": Columns.User, "item_id": Columns.Item, "rank": Columns.Rank}
    lists, truth = (table.to_pandas().rename(columns=names) for table in tables(folder, SAMPLE))
    items = pl.read_parquet(f"{folder}/items.parquet")
    first = items.select("item_id", pl.col("categories").list.first()).to_pandas().set_index("item_id")
    events = items.select("item_id", "events").to_pandas().rename(columns=names)
    log = pd.DataFrame({Columns.Item: events[Columns.Item].repeat(events["events"] // 100 + 1)})
    log[Columns.User] = range(len(log))
    distances = metrics.PairwiseHammingDistanceCalculator(pd.get_dummies(first))
    wanted = rectools_accuracy(metrics)
    for n in CUTOFFS:
        wanted[f"novelty@{n}"], wanted[f"popularity@{n}"] = metrics.MeanInvUserFreq(k=n), metrics.AvgRecPopularity(k=n)
        wanted[f"coverage@{n}"] = metrics.CatalogCoverage(k=n, normalize=True)
        wanted[f"distance@{n}"] = metrics.IntraListDiversity(k=n, distance_calculator=distances)
    begun = time.process_time()
    metrics.calc_metrics(wanted, reco=lists, interactions=truth.drop_duplicates(), prev_interactions=log, catalog=first.index.to_numpy())
    return {"cpu_seconds": time.process_time() - begun}


def loop(folder: str) -> dict:
    """A numpy loop over some of the users, with the lists in memory as numbers."""
    import numpy as np

    lists, truth = tables(folder)
    depth = lists["rank"].max()
    ranked = lists["item_id"].to_numpy().reshape(-1, depth)[:SAMPLE]
    targets = truth["item_id"].to_numpy().reshape(-1, TARGETS)[:SAMPLE]
    begun = time.process_time()
    users = [one_user(np, *pair) for pair in zip(ranked, targets, strict=True)]
    seconds = time.process_time() - begun
    return {"cpu_seconds": seconds, "first": {name: float(np.mean([user[name] for user in users])) for name in users[0]}}


def one_user(np, ranked, targets) -> dict[str, float]:
    """The usual way: one user's metrics at every cut-off."""
    wanted = np.unique(targets)
    hits = np.isin(ranked, wanted)
    found: dict[str, float] = {}
    for n in CUTOFFS:
        ranks = np.flatnonzero(hits[:n]) + 1
        gain, ideal = (1 / np.log2(ranks + 1)).sum(), min(n, len(wanted))
        found[f"recall@{n}"], found[f"hr@{n}"], found[f"precision@{n}"] = len(ranks) / len(wanted), float(len(ranks) > 0), len(ranks) / n
        found[f"ndcg@{n}"] = gain / (1 / np.log2(np.arange(2, ideal + 2))).sum()
        found[f"mrr@{n}"] = 1 / ranks[0] if len(ranks) else 0.0
        found[f"map@{n}"] = (np.arange(1, len(ranks) + 1) / ranks).sum() / ideal
    return found


def bootstrap() -> dict:
    import numpy as np

    from retrieval.evaluation.bootstrap import Bootstrap

    values = np.random.default_rng(0).random((100_000, 20)) ** 4
    Bootstrap(20, 10, 0).add(values[:10])
    begun, wall = time.process_time(), time.perf_counter()
    drawn = Bootstrap(20, 10_000, 0)
    drawn.add(values)
    drawn.intervals(0.95)
    return {
        "users": 100_000,
        "metrics": 20,
        "resamples": 10_000,
        "cpu_seconds": time.process_time() - begun,
        "seconds": time.perf_counter() - wall,
    }


def coverage() -> dict:
    """Shares of 1,000 data sets whose 95 % interval (BCa) holds what they were drawn with, a kind of metric each."""
    import numpy as np

    from retrieval.evaluation.bootstrap import intervals

    random, found = np.random.default_rng(0), {}
    draws = {
        "hits of 30 % on 100 users": lambda: (random.random((100, 1)) < 0.3, 0.3),
        "hits of 5 % on 500 users": lambda: (random.random((500, 1)) < 0.05, 0.05),
        "recall of 4 targets at 10 % on 300 users": lambda: (random.binomial(4, 0.1, (300, 1)) / 4, 0.1),
        "reciprocal ranks of 500 users": lambda: (1 / random.integers(1, 51, (500, 1)), float(np.mean(1 / np.arange(1, 51)))),
        "paired difference of 1 % on 1,000 users": lambda: (
            (random.random((1000, 1)) < 0.21).astype(float) - (random.random((1000, 1)) < 0.20),
            0.01,
        ),
        "a metric that a half of 400 users has": lambda: (
            np.where(random.random((400, 1)) < 0.5, random.random((400, 1)) ** 2, np.nan),
            1 / 3,
        ),
    }
    for name, draw in draws.items():
        held = []
        for number in range(1_000):
            values, truth = draw()
            one = intervals(values.astype(float), resamples=1_000, confidence=0.95, seed=number)[0]
            held.append(one.low <= truth <= one.high)
        found[name] = float(np.mean(held))
    return found


def in_own_process(measure, *arguments):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, arguments)


def show(what: str, values: dict, **more) -> None:
    rounded = {name: round(value, 4) if isinstance(value, float) else value for name, value in {**more, **values}.items()}
    print(json.dumps({"what": what, **{name: value for name, value in rounded.items() if name not in ("means", "first")}}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, nargs="+", default=[100_000])
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--rivals", choices=("all", "none"), default="all")
    parser.add_argument("--only", choices=("everything", "accuracy"))
    parser.add_argument("--bootstrap", action="store_true")
    parser.add_argument("--coverage", action="store_true")
    arguments = parser.parse_args()
    if arguments.bootstrap or arguments.coverage:
        show("bootstrap" if arguments.bootstrap else "coverage", in_own_process(bootstrap if arguments.bootstrap else coverage))
        return
    for users in arguments.users:
        with tempfile.TemporaryDirectory() as folder:
            in_own_process(make_tables, folder, users, arguments.depth)
            for _ in range(arguments.runs):
                if arguments.only != "accuracy":
                    show("everything", in_own_process(everything, folder, users, arguments.depth), users=users, depth=arguments.depth)
                if arguments.only != "everything":
                    against(folder, users, arguments.rivals == "all")


def against(folder: str, users: int, rivals: bool) -> None:
    ours = in_own_process(accuracy, folder)
    show("accuracy", ours, users=users, microseconds_a_user=1e6 * ours["cpu_seconds"] / users)
    for measure in (ranx, rectools, loop) if rivals else ():
        name = measure.__name__
        if measure is not loop and importlib.util.find_spec(name) is None:
            print(f"{name} is not installed and skipped")
            continue
        theirs = in_own_process(measure, folder)
        count = SAMPLE if measure is loop else users
        same, known = (ours["first"], theirs["first"]) if measure is loop else (ours["means"], theirs["means"])
        # Without a cut-off in its denominator, their MAP is another metric.
        worst = max(abs(same[key] - value) for key, value in known.items() if measure is loop or not key.startswith("map"))
        assert worst < 1e-6, (name, {key: (same[key], value) for key, value in known.items()})
        each = theirs["cpu_seconds"] / count
        ratio = each / (ours["cpu_seconds"] / users)
        show(name, theirs, users=count, microseconds_a_user=1e6 * each, times_ours=ratio, largest_difference=f"{worst:.1e}")

    if rivals and importlib.util.find_spec("rectools") is not None:
        own, theirs = in_own_process(shared, folder), in_own_process(rectools_shared, folder)
        show("everything that RecTools has, too", own, users=min(users, SAMPLE))
        show("rectools", theirs, users=min(users, SAMPLE), times_ours=theirs["cpu_seconds"] / own["cpu_seconds"])


if __name__ == "__main__":
    main()
