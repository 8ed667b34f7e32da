"""Whether re-scoring earns its time: recall of re-scored pools against the order of recall, paired, and milliseconds a user.

export RETRIEVAL_DATA=folder/with/ml-1m
python benchmarks/rescoring.py pipelines/ml-1m/rescored-din.toml --workspace workspace --rescorers din dien
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from retrieval.evaluation.comparison import compare
from retrieval.evaluation.measurements import Measurements
from retrieval.stages.audience import Audience, held_out
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recall import Server
from retrieval.stages.recipe import read_recipe
from retrieval.stages.run import open_run

METRICS = ("recall@10", "recall@20", "recall@50", "ndcg@20")


def measured(pipeline: Pipeline) -> Measurements:
    found = pipeline.measurements
    return Measurements.read(found.file)


def milliseconds(pipeline: Pipeline, users: int) -> tuple[float, float]:
    """CPU milliseconds a test user: recall up to the pool, and re-scoring it."""
    serving = pipeline.serving(pipeline.index)
    audience = held_out(pipeline.dataset)
    server, some = (
        Server(serving, at_the_cut=True),
        Audience(audience.users[:users], audience.visible[:users], audience.parts[:users], True),
    )
    spent = np.zeros(2)
    batches = server.recalled(some)
    while True:
        began = time.process_time()
        batch = next(batches, None)
        spent[0] += time.process_time() - began
        if batch is None:
            return tuple(1000 * spent / len(some.users))
        began = time.process_time()
        if serving.rescorer is not None:
            serving.rescorer(batch[1], batch[0])
        spent[1] += time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--rescorers", nargs="*", default=["din", "dien"])
    parser.add_argument("--positions", nargs="*", default=["training"])
    parser.add_argument("--users", type=int, default=500, help="whose time is taken")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    fixed = ["machine.threads=1", "evaluate.baselines=[]", *chosen.overrides]
    plain = measured(open_run(read_recipe(chosen.recipe, [*fixed, "rescore.name=none"]), chosen.workspace))
    print("max score   ", {name: f"{plain.summary.metrics[name].mean:.4f}" for name in METRICS})
    for positions in chosen.positions:
        for name in chosen.rescorers:
            overrides = [*fixed, f"rescore.name={name}", f"rescore.positions={positions}"]
            pipeline = open_run(read_recipe(chosen.recipe, overrides), chosen.workspace)
            began = time.process_time()
            artifact = pipeline.rescorer(pipeline.index)
            seconds, found = time.process_time() - began, measured(pipeline)
            differences = compare(found, plain).differences
            cost = milliseconds(pipeline, chosen.users)
            print(
                f"{name} ({positions})", {key: artifact.summary[key] for key in ("answerable", "best_step")}, f"trained in {seconds:.0f} s"
            )
            for metric in METRICS:
                gain = differences[metric]
                print(f"  {metric:<10} {found.summary.metrics[metric].mean:.4f}  {gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]")
            print(f"  recall {cost[0]:.2f} ms, re-scoring {cost[1]:.2f} ms a user")


if __name__ == "__main__":
    main()
