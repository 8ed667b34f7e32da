"""What a warm start costs in recall against a full retrain, and what it saves.

    RETRIEVAL_DATA=folder python benchmarks/warm_start.py --seeds 1 2 3

MovieTweetings: the log up to a week ago trains yesterday's model; the log of today has a week more, with new users and
new films. Judged on the week after it: recall@50 among all films of today's log, seen ones filtered, targets known
before. `stale` serves yesterday's weights as they are, its new films with fresh vectors; `warm` trains on from them for
a share of the steps, on all targets or on those of the last four weeks; `full` trains today's log from nothing. A
line a variant: the mean over the seeds of each user's value, its paired difference from `full` with a 95 % interval over users,
and the training seconds in shares of `full`.
"""

import argparse
import logging
import os
from pathlib import Path
from statistics import mean

import polars as pl

from retrieval.core.artifacts import Artifact
from retrieval.core.logging import configure_logging
from retrieval.evaluation.comparison import compare
from retrieval.evaluation.measurements import Measurements, mean_over_runs
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recipe import parse_recipe
from retrieval.stages.run import open_run

DAY = 86_400
WEEK = 7 * DAY
END = 1_378_000_000 // DAY * DAY
"""The last midnight of the log: the judged week ends there."""
SHARES = (0.5, 0.25, 0.1)


def log_until(end: int, folder: Path) -> Path:
    path = folder / f"until-{end}.parquet"
    if not path.exists():
        whole = pl.scan_parquet(Path(os.environ["RETRIEVAL_DATA"]) / "movietweetings-100k/interactions.parquet")
        whole.filter(pl.col("timestamp") < end).sink_parquet(path)
    return path


def pipeline(end: int, seed: int, arguments: argparse.Namespace, train: dict[str, object]) -> Pipeline:
    """A model of the log up to a week before `end`, judged on that week."""
    values = {
        "name": "movietweetings",
        "seed": seed,
        "data": {
            "name": "movietweetings",
            "interactions": {"path": str(log_until(end, arguments.workspace)), "time": "timestamp", "time_unit": "seconds"},
        },
        "split": {"protocol": "global-time", "valid_from": moment(end - WEEK - DAY), "test_from": moment(end - WEEK)},
        "model": {"name": "interest-transformer", "dimension": 64, "interests": 1, "history": 50, "dropout": 0.2},
        "train": {
            "steps": arguments.steps,
            "examples": {"batch_size": 64},
            "validate_every": 10_000,
            "loss": {"name": "full-softmax", "readout": "log-sum-exp"},
            "optimizer": {"learning_rate": 0.004, "weight_decay": 0.2, "warmup_steps": 20, "schedule": "cosine"},
            **train,
        },
        "recall": {"n": 50, "filter_seen": True},
        "evaluate": {"baselines": []},
        "machine": {"threads": 1, "device": "cpu"},
    }
    return open_run(parse_recipe(values, "movietweetings.toml"), arguments.workspace)


def moment(seconds: int) -> object:
    return pl.Series([seconds * 1000]).cast(pl.Datetime("ms", "UTC")).item()


def variants(arguments: argparse.Namespace, start: Artifact) -> dict[str, dict[str, object]]:
    """Settings of training by name; `full` comes first, the others are compared with it."""
    begun = {"start_from": str(start.path)}
    found: dict[str, dict[str, object]] = {"full": {}, "stale": begun | {"steps": 1, "optimizer": {"learning_rate": 1e-12}}}
    for share in SHARES:
        steps = max(1, round(share * arguments.steps))
        found[f"warm, {share:.0%} of the steps"] = begun | {"steps": steps}
        found[f"warm, {share:.0%}, newest"] = begun | {"steps": steps, "examples": {"batch_size": 64, "newest": 4 * WEEK}}
        found[f"full, {share:.0%} of the steps"] = {"steps": steps}
    return found


def measured(run: Pipeline) -> tuple[Measurements, float]:
    artifact, model = run.measurements, run.model_artifact
    return Measurements.read(artifact.file), model.manifest.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=1200, help="of a full training")
    parser.add_argument("--workspace", type=Path, default=Path("workspace"))
    arguments = parser.parse_args()
    configure_logging(as_json=False, level=logging.WARNING)
    arguments.workspace.mkdir(parents=True, exist_ok=True)
    runs: dict[str, list[tuple[Measurements, float]]] = {}
    for seed in arguments.seeds:
        yesterday = pipeline(END - WEEK, seed, arguments, {}).model_artifact
        for name, train in variants(arguments, yesterday).items():
            runs.setdefault(name, []).append(measured(pipeline(END, seed, arguments, train)))
    full, spent = mean_over_runs([run for run, _ in runs["full"]]), mean(seconds for _, seconds in runs["full"])
    print(f"{full.summary.counts}; a full training takes {spent:.0f} s")
    for name, found in runs.items():
        print(line(name, mean_over_runs([run for run, _ in found]), full, mean(seconds for _, seconds in found) / spent), flush=True)


def line(name: str, found: Measurements, full: Measurements, share: float) -> str:
    value, gain = found.summary.metrics["recall@50"], compare(found, full).differences["recall@50"]
    difference = "" if name == "full" else f"  {gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
    return f"{name:<24} recall@50 {value.mean:.4f} [{value.low:.4f}, {value.high:.4f}]  time {share:.2f}{difference}"


if __name__ == "__main__":
    main()
