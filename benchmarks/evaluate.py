"""Seconds and peak memory of measuring candidates: every metric at four cut-offs, with and without intervals.

    nice -n 5 python benchmarks/evaluate.py                       # 100 000 users x 100 candidates, 50 000 items
    nice -n 5 python benchmarks/evaluate.py --users 1000000 --runs 1

Every run is a process of its own, so that its peak resident memory is its own; medians of the runs are printed. Ours
reads parquet and joins ids; the rival is a numpy loop over a sample of the same users with the lists already in memory
as row numbers, so it has less to do. The two must agree on the sample.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

CUTOFFS = (10, 20, 50, 100)
DEPTH, TARGETS, SAMPLE, ITEMS = 100, 8, 2_000, 50_000


def make_tables(folder: str, users: int) -> None:
    import numpy as np
    import polars as pl

    random = np.random.default_rng(0)
    # A stride without a common factor with the number of items never meets an item twice.
    start = random.integers(0, ITEMS, (users, 1))
    stride = random.choice([number for number in range(1, ITEMS) if number % 2 and number % 5], (users, 1))
    rows = (start + np.arange(DEPTH + 40) * stride) % ITEMS
    targets = np.take_along_axis(rows, random.integers(0, DEPTH + 40, (users, TARGETS)), axis=1)
    ids = np.repeat(np.arange(users) + 2**40, DEPTH)
    ranks = np.tile(np.arange(1, DEPTH + 1, dtype=np.int32), users)
    lists = pl.DataFrame({"user_id": ids, "item_id": rows[:, :DEPTH].reshape(-1) * 7, "rank": ranks})
    for number, part in enumerate(lists.iter_slices(65_536 * DEPTH)):
        part.write_parquet(Path(folder) / f"part-{number:05d}.parquet")
    truth = pl.DataFrame({"user_id": np.repeat(np.arange(users) + 2**40, TARGETS), "item_id": targets.reshape(-1) * 7})
    truth.write_parquet(Path(folder) / "truth.parquet")
    categories = pl.Series([[f"c{number % 40}"] for number in range(ITEMS)])
    items = pl.DataFrame({"item_id": np.arange(ITEMS) * 7, "categories": categories, "events": random.integers(1, 1000, ITEMS)})
    items.write_parquet(Path(folder) / "items.parquet")
    np.savez(Path(folder) / "sample.npz", lists=rows[:SAMPLE, :DEPTH], targets=targets[:SAMPLE])


def settings():
    from retrieval.evaluation.settings import EvaluationSettings

    return EvaluationSettings(cutoffs=CUTOFFS)


def measure_ours(folder: str, with_intervals: bool) -> dict:
    import polars as pl

    from retrieval.core.resources import measured
    from retrieval.evaluation.evaluator import ItemFacts, evaluate, overall_metrics, per_user_metrics
    from retrieval.evaluation.judgements import judge, read_truth

    candidates, truth = sorted(Path(folder).glob("part-*")), Path(folder) / "truth.parquet"
    items = pl.read_parquet(Path(folder) / "items.parquet")
    with measured() as usage:
        if with_intervals:
            per_user = evaluate(candidates, truth, items, settings()).per_user
        else:
            facts = ItemFacts.of(items)
            judged = judge(candidates, read_truth(truth, None), facts.ids, max(CUTOFFS))
            per_user = per_user_metrics(judged, facts, CUTOFFS)
            overall_metrics(judged, len(items), CUTOFFS)
    means = per_user.head(SAMPLE).drop("user_id").mean().row(0, named=True)
    return {"seconds": usage.seconds, "peak_memory_mb": usage.peak_memory_bytes / 1e6, "means": means}


def measure_loop(folder: str, _with_intervals: bool) -> dict:
    import numpy as np
    import polars as pl

    items, sample = pl.read_parquet(f"{folder}/items.parquet"), np.load(f"{folder}/sample.npz")
    categories, events = np.arange(ITEMS) % 40, items["events"].to_numpy()
    bits = -np.log2(events / events.sum())
    begun = time.perf_counter()
    users = [one_user(np, ranked, targets, categories, bits) for ranked, targets in zip(sample["lists"], sample["targets"], strict=True)]
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "means": {name: float(np.mean([user[name] for user in users])) for name in users[0]}}


def one_user(np, ranked, targets, categories, bits) -> dict[str, float]:
    """The usual way: one user's metrics at every cut-off."""
    wanted = np.unique(targets)
    hits = np.isin(ranked, wanted)
    found: dict[str, float] = {}
    for n in CUTOFFS:
        top, shown = hits[:n], ranked[:n]
        ranks = np.flatnonzero(top) + 1
        gain, ideal = (1 / np.log2(ranks + 1)).sum(), min(n, len(wanted))
        found[f"recall@{n}"], found[f"hr@{n}"], found[f"precision@{n}"] = len(ranks) / len(wanted), float(len(ranks) > 0), len(ranks) / n
        found[f"ndcg@{n}"] = gain / (1 / np.log2(np.arange(2, ideal + 2))).sum()
        found[f"ndcg_comirec@{n}"] = gain / (1 / np.log2(np.arange(2, len(ranks) + 2))).sum() if len(ranks) else 0.0
        found[f"mrr@{n}"] = 1 / ranks[0] if len(ranks) else 0.0
        found[f"map@{n}"] = (np.arange(1, len(ranks) + 1) / ranks).sum() / ideal
        equal = (np.bincount(categories[shown]) * (np.bincount(categories[shown]) - 1) / 2).sum()
        found[f"diversity@{n}"] = 1 - equal / (n * (n - 1) / 2)
        found[f"novelty@{n}"] = bits[shown].mean()
    return found


def in_own_process(measure, *arguments):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, arguments)


def median(runs: list[dict], name: str) -> float:
    return statistics.median(run[name] for run in runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        in_own_process(make_tables, folder, arguments.users)
        ways = {"metrics": (measure_ours, False), "metrics and intervals": (measure_ours, True), "loop": (measure_loop, False)}
        runs: dict[str, list[dict]] = {name: [] for name in ways}
        for _ in range(arguments.runs):
            for name, (measure, with_intervals) in ways.items():
                runs[name].append(in_own_process(measure, folder, with_intervals))
    report(runs, arguments.users)


def report(runs: dict[str, list[dict]], users: int) -> None:
    sample = min(SAMPLE, users)
    loop, ours = runs["loop"][0]["means"], runs["metrics"][0]["means"]
    worst = max(abs(loop[name] - ours[name]) for name in loop)
    assert set(loop) == set(ours), set(loop) ^ set(ours)
    assert worst < 1e-9, worst
    for name in ("metrics", "metrics and intervals"):
        seconds, memory = median(runs[name], "seconds"), median(runs[name], "peak_memory_mb")
        print(json.dumps({"what": name, "users": users, "seconds": round(seconds, 2), "peak_memory_mb": round(memory)}))
    each = median(runs["loop"], "seconds") / sample
    ratio = each * users / median(runs["metrics"], "seconds")
    print(json.dumps({"what": "loop", "users": sample, "microseconds_per_user": round(each * 1e6), "largest_difference": worst}))
    print(f"a loop over users takes {ratio:.0f} times as long as the metrics without intervals")


if __name__ == "__main__":
    main()
