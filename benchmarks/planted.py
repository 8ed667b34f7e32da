"""Planted interests: are they recovered, and is K=4 better than K=1?

    python benchmarks/planted.py --seeds 1 2 3
    python benchmarks/planted.py --cost

Logs of pipelines/sample.toml without drift, so that every user has the same four topics all along. For each training
seed: the share of planted topics recovered, recall@50 of K=4 and of K=1 at equal steps, then of K=1 with as many steps as
K=4's training time is worth, negatives and batches equal throughout, and the paired differences with their 95 %
intervals.

`--cost`: what dividing a history costs: the encoder forwards and backwards over 64 windows of 50, every position, one thread, CPU
time, medians of steps in turns, for one interest, four learned queries and four exemplars.
"""

import argparse
import logging
import statistics
import tempfile
import time
from pathlib import Path

import polars as pl
import torch

from retrieval.core.logging import configure_logging
from retrieval.evaluation.comparison import compare
from retrieval.evaluation.measurements import Measurements
from retrieval.evaluation.planted import planted_recovery
from retrieval.models.histories import gather_histories
from retrieval.models.retrieval_model import RetrievalModel
from retrieval.models.settings import InterestTransformerSettings
from retrieval.models.table import build_model
from retrieval.stages.audience import Scope
from retrieval.stages.build_index import load_vectors
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recipe import read_recipe
from retrieval.stages.run import open_run

RECIPE = Path(__file__).parents[1] / "pipelines/sample.toml"


def measured(pipeline: Pipeline) -> Measurements:
    artifact = pipeline.measurements
    return Measurements.read(artifact.file)


def run(recipe: Path, overrides: list[str], workspace: Path) -> str:
    pipeline = open_run(read_recipe(recipe, overrides), workspace)
    single = pipeline.baselines()["k1"]
    candidates = pipeline.candidates(Scope())
    folder = next((workspace / "generated").iterdir())
    recovery = planted_recovery(
        candidates.files("interests-"),
        load_vectors(pipeline.vectors),
        pipeline.dataset.catalog.item_ids,
        pl.read_parquet(folder / "planted_items.parquet"),
        pl.read_parquet(folder / "planted_interests.parquet"),
    )
    longer = open_run(read_recipe(recipe, [*overrides, "model.interests=1", f"train.steps={steps_worth(pipeline, single)}"]), workspace)
    return (
        f"planted topics found {recovery.found:.3f}, interests that are planted {recovery.true:.3f}, "
        f"recall@50 K=4 {recall(pipeline):.4f}, {against(pipeline, single)}, {against(pipeline, longer)}"
    )


def steps_worth(pipeline: Pipeline, single: Pipeline) -> int:
    """Steps of the one-interest model that take as long as the training of the other."""
    seconds = [each.model_artifact.manifest.seconds for each in (pipeline, single)]
    return round(single.recipe.train.steps * seconds[0] / seconds[1])


def against(pipeline: Pipeline, single: Pipeline) -> str:
    gain = compare(measured(pipeline), measured(single)).differences["recall@50"]
    interval = f"{gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
    return f"K=1 after {single.recipe.train.steps} steps {recall(single):.4f}, difference {interval}"


def recall(pipeline: Pipeline) -> float:
    return measured(pipeline).summary.metrics["recall@50"].mean or 0.0


MODELS = {"one interest": {"interests": 1}, "learned": {"readers": "learned"}, "exemplars": {"readers": "exemplars"}}
WINDOWS, LENGTH, ITEMS, TURNS = 64, 50, 3_000, 15


def cost() -> None:
    torch.set_num_threads(1)
    ends = torch.arange(1, WINDOWS + 1) * LENGTH
    items = torch.randint(ITEMS, (WINDOWS * LENGTH,), generator=torch.Generator().manual_seed(0))
    histories = gather_histories(items, torch.arange(len(items)) * 1000, ends - LENGTH, ends, LENGTH)
    models = {name: build_model(InterestTransformerSettings(history=LENGTH, **chosen), ITEMS, 1).train() for name, chosen in MODELS.items()}
    taken: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(TURNS):
        for name, model in models.items():
            assert isinstance(model, RetrievalModel)
            started = time.thread_time()
            model.prefix_interests(histories).vectors.square().sum().backward()
            taken[name].append(time.thread_time() - started)
    print("  ".join(f"{name} {1e3 * statistics.median(each[2:]):.1f} ms" for name, each in taken.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--cost", action="store_true")
    arguments = parser.parse_args()
    if arguments.cost:
        cost()
        return
    configure_logging(as_json=False, level=logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        for seed in arguments.seeds:
            overrides = ["generate.behaviour.drift=0", f"seed={seed}", *arguments.overrides]
            print(f"seed {seed}: {run(RECIPE, overrides, Path(folder))}", flush=True)


if __name__ == "__main__":
    main()
