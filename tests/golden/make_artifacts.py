"""Writes tests/golden/artifacts/: one tiny artifact of every kind in its present format, and what reading them must give.

    python tests/golden/make_artifacts.py

To be run when the format of a kind changes (FORMATS in retrieval/stages/ensure.py), and once for a release.
"""

import datetime as dt
import json
import shutil
import tempfile
from pathlib import Path

import polars as pl

from retrieval.core.publication import Publication
from retrieval.stages.audience import Scope
from retrieval.stages.ensure import FORMATS
from retrieval.stages.export import ExportSettings
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recipe import parse_recipe
from retrieval.stages.run import open_run

FOLDER = Path(__file__).parent / "artifacts"


def log() -> pl.DataFrame:
    """Thirty users who walk round a ring of items, eight steps each."""
    steps = pl.DataFrame({"user_id": range(30)}).join(pl.DataFrame({"step": range(8)}), how="cross")
    start = int(dt.datetime(2024, 1, 1, tzinfo=dt.UTC).timestamp())
    timestamp = start + 3_600 * pl.col("step") + pl.col("user_id")
    return steps.select("user_id", ((pl.col("user_id") + pl.col("step")) % 12).alias("item_id"), timestamp.alias("timestamp"))


def pipeline_in(folder: Path) -> Pipeline:
    log().write_parquet(folder / "log.parquet")
    values = {
        "name": "golden",
        "data": {"name": "ring", "interactions": {"path": str(folder / "log.parquet"), "time_unit": "seconds"}},
        "split": {"protocol": "leave-last-out"},
        "model": {"name": "comirec-sa", "dimension": 8, "interests": 2, "history": 6},
        "train": {"steps": 20, "validate_every": 10, "examples": {"batch_size": 8}, "loss": {"negatives": 4}},
        "index": {"factory": "IVF2,Flat", "nprobe": 2, "device": "cpu"},
        "recall": {"n": 5, "pool": 8, "filter_seen": False, "scores": "isotonic"},
        "evaluate": {"cutoffs": [5], "primary": "recall@5", "frontier_builders": [], "resamples": 20},
        "machine": {"threads": 1, "device": "cpu"},
    }
    return open_run(parse_recipe(values, "golden.toml"), folder / "workspace")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        pipeline = pipeline_in(Path(name))
        lists, measurements = pipeline.candidates(Scope(who="all")), pipeline.measurements
        pipeline.export(Path(name) / "workspace/export/golden", ExportSettings(users=None))
        made = {record.artifact.kind: record.artifact for record in pipeline.stages.records}
        made |= {"candidates": lists}
        Publication(Path(name) / "workspace", "golden").publish("2024-01-01", made, {}, instead_of=0, why="golden")
        shutil.rmtree(FOLDER, ignore_errors=True)
        for kind, artifact in made.items():
            shutil.copytree(artifact.path, FOLDER / kind / artifact.path.name)
        shutil.copytree(Path(name) / "workspace/published", FOLDER / "published", ignore=shutil.ignore_patterns(".lock"))
        expected = {
            "formats": {kind: FORMATS[kind] for kind in made},
            "events": pipeline.dataset.sequences.n_events,
            "items": pipeline.dataset.catalog.item_ids.to_list(),
            "list of user 0": pl.read_parquet(lists.files("part-")).filter(pl.col("user_id") == 0)["item_id"].to_list(),
            "recall@5": measurements.summary["metrics"]["recall@5"]["mean"],
        }
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
