"""What keeps interests apart, and what it does to recall: one setting at a time, at equal steps and negatives.

    python benchmarks/ablation.py pipelines/sample.toml --seeds 1 2 3 --set generate.behaviour.drift=0

For each variant the mean over seeds and users of recall@20 and recall@50 on the test users, the paired difference of
recall@50 from the first variant with a 95 % interval over users, and the health of the interests on the validation
users: mean cosine of two interests, effective rank, how many interests contribute to a list, the largest share of
listed items that one interest wins.
"""

import argparse
import json
import logging
from pathlib import Path

from retrieval.core.logging import configure_logging
from retrieval.evaluation.comparison import compare
from retrieval.evaluation.measurements import Measurements, mean_over_runs
from retrieval.stages.recipe import read_recipe
from retrieval.stages.run import open_run

VARIANTS = {
    "max": ["train.loss.readout=max"],
    "log-sum-exp": ["train.loss.readout=log-sum-exp"],
    "hard": ["train.loss.readout=hard"],
    "sampled": ["train.loss.readout=sampled", "train.loss.power=1"],
    "orthogonality": ["train.loss.readout=max", "train.loss.penalties.orthogonality=0.1"],
    "routing": ["train.loss.readout=max", "train.loss.penalties.routing=100"],
    "hard negatives": ["train.loss.readout=max", "train.loss.hardness=1"],
    "log-sum-exp, hard negatives": ["train.loss.readout=log-sum-exp", "train.loss.hardness=1"],
    "log-sum-exp, user weights": ["train.loss.readout=log-sum-exp", "model.weighted=true"],
    "one interest": ["train.loss.readout=max", "model.interests=1"],
}
HEALTH = ("interest_cosine", "effective_rank", "contributing_interests", "largest_share")


def measured(recipe: Path, overrides: list[str], workspace: Path) -> tuple[Measurements, dict[str, float]]:
    pipeline = open_run(read_recipe(recipe, ["evaluate.baselines=[]", *overrides]), workspace)
    artifact, model = pipeline.measurements, pipeline.model_artifact
    curve = json.loads(model.file("history.json").read_text())
    best = next(point for point in curve if point["step"] == model.manifest.summary["best_step"])
    return Measurements.read(artifact.file), best


def line(name: str, found: Measurements, health: list[dict[str, float]], reference: Measurements | None) -> str:
    recalls = "  ".join(f"{metric} {found.summary.metrics[metric].mean:.4f}" for metric in ("recall@20", "recall@50"))
    means = "  ".join(f"{key} {sum(each[key] for each in health) / len(health):.2f}" for key in HEALTH)
    if reference is None:
        return f"{name:<28} {recalls}  {'':<27}  {means}"
    gain = compare(found, reference).differences["recall@50"]
    return f"{name:<28} {recalls}  {gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]  {means}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--workspace", type=Path, default=Path("workspace"))
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    arguments = parser.parse_args()
    configure_logging(as_json=False, level=logging.WARNING)
    reference = None
    for name in arguments.variants:
        runs = [
            measured(arguments.recipe, [*arguments.overrides, *VARIANTS[name], f"seed={seed}"], arguments.workspace)
            for seed in arguments.seeds
        ]
        found = mean_over_runs([run for run, _ in runs])
        print(line(name, found, [health for _, health in runs], reference), flush=True)
        reference = reference or found


if __name__ == "__main__":
    main()
