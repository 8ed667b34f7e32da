"""Whether re-scoring earns its time: recall of re-scored pools against the order of recall, paired, and milliseconds a user.

export RETRIEVAL_DATA=folder/with/ml-1m
python benchmarks/rescoring.py pipelines/ml-1m/rescored-din.toml --workspace workspace --rescorers din dien
"""

import argparse
import time
from pathlib import Path

import torch

from retrieval.evaluation.rescoring import RescoringGain
from retrieval.stages.evaluate import RESCORING
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recipe import read_recipe
from retrieval.stages.run import open_run

METRICS = ("recall@10", "recall@20", "recall@50", "ndcg@20")


def measured(pipeline: Pipeline) -> RescoringGain:
    """What every evaluation of a re-scored recipe measures, and its report shows."""
    return RescoringGain.model_validate_json(pipeline.measurements.file(RESCORING).read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--rescorers", nargs="*", default=["din", "dien"])
    parser.add_argument("--positions", nargs="*", default=["training"])
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for positions in chosen.positions:
        for name in chosen.rescorers:
            asked = [
                "machine.threads=1",
                "evaluate.baselines=[]",
                *chosen.overrides,
                f"rescore.name={name}",
                f"rescore.positions={positions}",
            ]
            pipeline = open_run(read_recipe(chosen.recipe, asked), chosen.workspace)
            index, began = pipeline.index, time.process_time()
            artifact = pipeline.rescorer(index)
            seconds, found = time.process_time() - began, measured(pipeline)
            learned = {key: artifact.summary[key] for key in ("answerable", "best_step", "gain")}
            print(f"{name} ({positions})", learned, f"trained in {seconds:.0f} s")
            for metric in METRICS:
                gain, means = found.comparison.differences[metric], (found.recalled[metric].mean, found.rescored[metric].mean)
                print(f"  {metric:<10} {means[0]:.4f} -> {means[1]:.4f}  {gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]")
            print(f"  {found.cost.in_words()}")


if __name__ == "__main__":
    main()
