"""check-leaks: whether anything that had to stay hidden reached training, of a recipe or of anybody's tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors import safe_open

from retrieval.core.artifacts import Artifact
from retrieval.core.errors import QualityGateError
from retrieval.core.logging import get_logger
from retrieval.data.dataset import Dataset
from retrieval.evaluation.leaks.check import CHECKS, OF_A_MODEL, check_leaks
from retrieval.evaluation.leaks.datasets import evidence_of, training_segments
from retrieval.evaluation.leaks.evidence import Popularity, item_figures
from retrieval.evaluation.leaks.findings import LeakReport
from retrieval.evaluation.leaks.tables import LeakTables, evidence_of_tables
from retrieval.evaluation.tables import parquet_files
from retrieval.models.settings import EncoderSettings
from retrieval.stages.recipe import Recipe
from retrieval.stages.warm_start import WEIGHTS

if TYPE_CHECKING:
    from retrieval.stages.pipeline import Pipeline

_HOUR, _ROUNDING = 3_600, 1e-3
log = get_logger("leaks")


def check_run(
    recipe: Recipe, dataset: Artifact, model: Artifact | None, lists: Sequence[Path] = (), *, baseline: bool = False
) -> LeakReport:
    """Look for leaks in a dataset, in what a model has counted of it, and in lists for its test users (parquet files).

    baseline: another model's run looks at the dataset; only what is this model's own is looked at.
    """
    opened, truth = Dataset.open(dataset), pl.read_parquet(dataset.file("truth.parquet"))
    in_seconds = dataset.summary["time"]["unit"] == "seconds"
    popularity = _counted(recipe, model, opened) if model else {}
    evidence = evidence_of(opened, recipe.split, truth, in_seconds=in_seconds, popularity=popularity, candidates=lists)
    found = check_leaks(evidence, OF_A_MODEL if baseline else CHECKS)
    for finding in found.findings:
        log.warning("leak", kind=finding.kind, where=finding.where, rows=finding.rows, example=finding.example)
    return found


def check_pipeline(pipeline: "Pipeline", candidates: Path | None = None) -> LeakReport:
    """The same for a recipe: the dataset is made where it is not there, the model is looked at where it is."""
    model = pipeline.stages.workspace.find("model", pipeline.model_id)
    return check_run(pipeline.recipe, pipeline.dataset_artifact, model, () if candidates is None else parquet_files([candidates]))


def check_tables(tables: LeakTables) -> LeakReport:
    """The same for anybody's tables."""
    return check_leaks(evidence_of_tables(tables))


def require_clean(found: LeakReport) -> None:
    """Raise QualityGateError where there is a leak."""
    if not found.clean:
        raise QualityGateError(found.verdict(), where="check-leaks", expected="no leak", remedy="see the findings above")


def report_lines(found: LeakReport) -> list[str]:
    """The verdict, what was found, what was looked for."""
    lines = [found.verdict(), *(f"  {finding.kind}: {finding.sentence()}" for finding in found.findings), ""]
    lines += [f"{kind:<24} {status}" for kind, status in found.checked.items()]
    return [*lines, *(["", *found.remarks] if found.remarks else [])]


def _counted(recipe: Recipe, model: Artifact, dataset: Dataset) -> Mapping[str, Popularity]:
    """What a model has counted and not learned, by name, with the most that training events allow."""
    found: dict[str, Popularity] = {}
    if WEIGHTS not in model.manifest.files:
        return found
    with safe_open(model.file(WEIGHTS), framework="numpy") as tensors:
        names = set(tensors.keys())
        if "counts" in names:
            found["counts of the popularity model"] = Popularity(tensors.get_tensor("counts"))
        if "prior" in names and isinstance(recipe.model, EncoderSettings):
            off = np.abs(tensors.get_tensor("prior") - _prior(recipe.model, dataset))
            found["prior of the items, how far it is from the training events' own"] = Popularity(off, np.full(len(off), _ROUNDING))
    return found


def _prior(model: EncoderSettings, dataset: Dataset) -> NDArray[np.float64]:
    """The prior that training events give, from its definition in the settings."""
    settings = model.prior
    training = training_segments(dataset)
    whole = item_figures(training, dataset.catalog.n_items)
    fresh = item_figures(training, dataset.catalog.n_items, since=int(whole.last.max()) - round(settings.hours * _HOUR))
    shares = [(each.counts + settings.smoothing) / (each.counts + settings.smoothing).sum() for each in (fresh, whole)]
    prior: NDArray[np.float64] = settings.weight * np.log(shares[0]) - np.log(shares[1])
    if model.fields.items and fresh.counts.any():
        known = np.sort(prior[fresh.counts > 0])
        prior[whole.counts == 0] = known[round(settings.unseen * (len(known) - 1))]
    return prior
