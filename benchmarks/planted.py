"""Planted interests: are they recovered, and is K=4 better than K=1?

    python benchmarks/planted.py --seeds 1 2 3

Logs of pipelines/sample.toml without drift, so that every user has the same four topics all along. For each training
seed: the share of planted topics recovered, recall@50 of K=4 and K=1 at equal steps and negatives, and the paired
difference with its 95 % interval.
"""

import argparse
import logging
import tempfile
from pathlib import Path

import polars as pl

from retrieval.core.logging import configure_logging
from retrieval.evaluation.measurements import Measurements, compare
from retrieval.evaluation.planted import planted_recovery
from retrieval.stages.audience import Scope
from retrieval.stages.build_index import load_vectors
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recipe import read_recipe
from retrieval.stages.run import open_run

RECIPE = Path(__file__).parents[1] / "pipelines/sample.toml"


def measured(pipeline: Pipeline) -> Measurements:
    artifact = pipeline.measurements
    return Measurements.read(artifact.file("per_user.parquet"), artifact.file("summary.json"))


def run(recipe: Path, overrides: list[str], workspace: Path) -> str:
    pipeline = open_run(read_recipe(recipe, overrides), workspace)
    single = pipeline.baselines()["k1"]
    difference = compare(measured(pipeline), measured(single)).differences["recall@50"]
    folder = next((workspace / "generated").iterdir())
    candidates = pipeline.candidates(Scope())
    recovery = planted_recovery(
        candidates.files("interests-"),
        load_vectors(pipeline.vectors),
        pipeline.dataset.catalog.item_ids,
        pl.read_parquet(folder / "planted_items.parquet"),
        pl.read_parquet(folder / "planted_interests.parquet"),
    )
    interval = f"[{difference.low:+.4f}, {difference.high:+.4f}]"
    scores = [measured(each).summary.metrics["recall@50"].mean for each in (pipeline, single)]
    return (
        f"planted topics found {recovery.found:.3f}, interests that are planted {recovery.true:.3f}, "
        f"recall@50 K=4 {scores[0]:.4f}, K=1 {scores[1]:.4f}, difference {difference.mean:+.4f} {interval}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    arguments = parser.parse_args()
    configure_logging(as_json=False, level=logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        for seed in arguments.seeds:
            overrides = ["generate.behaviour.drift=0", f"seed={seed}", *arguments.overrides]
            print(f"seed {seed}: {run(RECIPE, overrides, Path(folder))}", flush=True)


if __name__ == "__main__":
    main()
