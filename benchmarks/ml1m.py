"""The models on MovieLens-1M, ComiRec's protocol, several training seeds, beside popularity.

    RETRIEVAL_DATA=folder python benchmarks/ml1m.py --seeds 1 2 3 --threads 2

Every recipe of pipelines/ml-1m: test users, all items ranked, seen items not filtered. A line a run (training seconds
include validation), then a line a model: the mean over seeds of each user's value with a 95 % bootstrap interval over
users, the spread over seeds, and the paired difference from YouTubeDNN.
"""

import argparse
import logging
from pathlib import Path

import polars as pl

from retrieval.core.logging import configure_logging
from retrieval.evaluation.measurements import Measurements, MeasurementSummary, compare, summarise
from retrieval.stages.recipe import read_recipe
from retrieval.stages.run import open_run

RECIPES = Path(__file__).parents[1] / "pipelines/ml-1m"
MODELS = ("popular", "youtube-dnn", "gru4rec", "comirec-sa", "comirec-dr", "mind")
SHOWN = ("hr@10", "ndcg@10", "recall@20", "recall@50", "diversity@50")


def one_run(model: str, seed: int, arguments: argparse.Namespace) -> Measurements:
    overrides = [f"seed={seed}", f"machine.threads={arguments.threads}", "evaluate.baselines=[]", *arguments.overrides]
    pipeline = open_run(read_recipe(RECIPES / f"{model}.toml", overrides), arguments.workspace)
    artifact, trained = pipeline.measurements, pipeline.model_artifact
    measured = Measurements.read(artifact.file("per_user.parquet"), artifact.file("summary.json"))
    figures = "  ".join(f"{name} {measured.summary.metrics[name].mean:.4f}" for name in SHOWN)
    memory = trained.manifest.peak_memory_bytes / 1e9
    print(f"{model:<12} seed {seed}  {figures}  trained {trained.manifest.seconds:.0f} s, {memory:.2f} GB", flush=True)
    return measured


def over_seeds(runs: list[Measurements]) -> Measurements:
    """Each user's mean over the seeds, summarised again."""
    frames = pl.concat(run.per_user for run in runs)
    means = frames.group_by("user_id", maintain_order=True).mean()
    settings = runs[0].summary.settings
    summary = MeasurementSummary(metrics=summarise(means, settings), overall={}, counts=runs[0].summary.counts, settings=settings)
    return Measurements(means, summary)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--workspace", type=Path, default=Path("workspace"))
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    arguments = parser.parse_args()
    configure_logging(as_json=False, level=logging.WARNING)
    runs = {model: [one_run(model, seed, arguments) for seed in arguments.seeds] for model in arguments.models}
    for model, found in runs.items():
        print(line(model, found, runs.get("youtube-dnn")))


def line(model: str, found: list[Measurements], reference: list[Measurements] | None) -> str:
    together = over_seeds(found)
    cells = []
    for name in SHOWN[:4]:
        value = together.summary.metrics[name]
        each = [run.summary.metrics[name].mean or 0.0 for run in found]
        cells.append(f"{name} {value.mean:.4f} [{value.low:.4f}, {value.high:.4f}] seeds {min(each):.4f}..{max(each):.4f}")
    if reference is not None and reference is not found:
        gain = compare(together, over_seeds(reference)).differences["recall@50"]
        cells.append(f"recall@50 minus youtube-dnn {gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]")
    return f"{model:<12} " + "  ".join(cells)


if __name__ == "__main__":
    main()
