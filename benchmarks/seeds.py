"""Recipes over several training seeds, and how much the first is better or worse than each of the others.

    RETRIEVAL_DATA=folder python benchmarks/seeds.py --seeds 1 2 3 --threads 2
    RETRIEVAL_DATA=folder python benchmarks/seeds.py globo-news/interest-transformer globo-news/popular-lately --seeds 1 2 3

Recipes are named by their path under pipelines/ without ".toml"; without names: the models on MovieLens-1M, ComiRec's protocol.
A line a run (training seconds include validation), then a line a recipe: the mean over seeds of each user's
value with a 95 % bootstrap interval over users, the spread over seeds, and the paired difference from the first recipe.
"""

import argparse
import logging
from pathlib import Path

from retrieval.core.logging import configure_logging
from retrieval.evaluation.comparison import compare
from retrieval.evaluation.measurements import Measurements, mean_over_runs
from retrieval.stages.recipe import read_recipe
from retrieval.stages.run import open_run

PIPELINES = Path(__file__).parents[1] / "pipelines"
RECIPES = ("youtube-dnn", "popular", "gru4rec", "comirec-sa", "comirec-dr", "mind")
SHOWN = ("hr@10", "ndcg@10", "recall@20", "recall@50", "diversity@50")


def one_run(recipe: str, seed: int, arguments: argparse.Namespace) -> Measurements:
    overrides = [f"seed={seed}", f"machine.threads={arguments.threads}", "evaluate.baselines=[]", *arguments.overrides]
    pipeline = open_run(read_recipe(PIPELINES / f"{recipe}.toml", overrides), arguments.workspace)
    artifact, trained = pipeline.measurements, pipeline.model_artifact
    measured = Measurements.read(artifact.file)
    figures = "  ".join(f"{name} {mean(measured, name):.4f}" for name in SHOWN if name in measured.summary.metrics)
    memory = trained.manifest.peak_memory_bytes / 1e9
    print(f"{recipe} seed {seed}  {figures}  trained {trained.manifest.seconds:.0f} s, {memory:.2f} GB", flush=True)
    return measured


def mean(run: Measurements, metric: str) -> float:
    return run.summary.metrics[metric].mean or 0.0


def line(recipe: str, runs: list[Measurements], reference: list[Measurements]) -> str:
    together = mean_over_runs(runs)
    cells = [cell(name, together, runs) for name in SHOWN[:4] if name in together.summary.metrics]
    if runs is not reference:
        gain = compare(mean_over_runs(reference), together).differences["recall@50"]
        cells.append(f"the first is better at recall@50 by {gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]")
    return f"{recipe}  " + "  ".join(cells)


def cell(metric: str, together: Measurements, runs: list[Measurements]) -> str:
    value, each = together.summary.metrics[metric], [mean(run, metric) for run in runs]
    return f"{metric} {value.mean:.4f} [{value.low:.4f}, {value.high:.4f}] seeds {min(each):.4f}..{max(each):.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=[f"ml-1m/{name}" for name in RECIPES])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--workspace", type=Path, default=Path("workspace"))
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    arguments = parser.parse_args()
    configure_logging(as_json=False, level=logging.WARNING)
    runs = {recipe: [one_run(recipe, seed, arguments) for seed in arguments.seeds] for recipe in arguments.recipes}
    for recipe, found in runs.items():
        print(line(recipe, found, runs[arguments.recipes[0]]))


if __name__ == "__main__":
    main()
