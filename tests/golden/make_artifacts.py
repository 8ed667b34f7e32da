"""Writes tests/golden/artifacts/: one tiny artifact of every kind in its present format, a published version, the record of the night that
published it, and what reading them must give.

    python tests/golden/make_artifacts.py

To be run when the format of a kind changes (FORMATS in retrieval/core/formats.py), and once for a release.
"""

import contextlib
import datetime as dt
import json
import shutil
import tempfile
from pathlib import Path

import polars as pl

from retrieval.core.artifacts import Artifact, Workspace
from retrieval.core.formats import FORMATS
from retrieval.core.publication import Publication
from retrieval.stages.ensure import Stages
from retrieval.stages.export import ExportSettings
from retrieval.stages.folds import run_folds
from retrieval.stages.nightly.night import run_night
from retrieval.stages.nightly.records import NightRecord, Nights
from retrieval.stages.nightly.request import Request
from retrieval.stages.pipeline import Pipeline

LEFT_OUT = "index.html"
"""Of a report: five megabytes of a library for plots; what it shows stands in report.json."""
FOLDER = Path(__file__).parent / "artifacts"
DATE = dt.date(2024, 1, 8)
RECIPE = """
name = "golden"
data = { name = "ring", interactions = { path = "log.parquet", time_unit = "seconds" } }
split = { protocol = "leave-last-out" }
model = { name = "comirec-sa", dimension = 8, interests = 2, history = 6 }
train = { steps = 20, validate_every = 10, examples = { batch_size = 8 }, loss = { negatives = 4 } }
index = { factory = "IVF2,Flat", nprobe = 2, device = "cpu" }
recall = { n = 5, pool = 8, filter_seen = false, scores = "isotonic" }
rescore = { name = "din", examples = 40, training = { steps = 2, validate_every = 2, batch_size = 8 } }
evaluate = { cutoffs = [5], primary = "recall@5", baselines = [], frontier_builders = [], resamples = 20 }
report = { map_items = 0 }
nightly.model = { max_cosine = 1.0, min_effective_rank = 0.0, max_dead = 1.0 }
machine = { threads = 1, device = "cpu" }
"""


def log() -> pl.DataFrame:
    """Thirty users who walk round a ring of items, a step a day for eight days."""
    steps = pl.DataFrame({"user_id": range(30)}).join(pl.DataFrame({"step": range(8)}), how="cross")
    start = int(dt.datetime(2024, 1, 1, tzinfo=dt.UTC).timestamp())
    timestamp = start + 86_400 * pl.col("step") + 60 * pl.col("user_id")
    return steps.select("user_id", ((pl.col("user_id") + pl.col("step")) % 12).alias("item_id"), timestamp.alias("timestamp"))


def make() -> dict[str, Artifact]:
    """A published night in the present folder, with an export and folds: an artifact of every kind that needs no other machine.

    Relative paths: no name of the machine that made them is in them.
    """
    Path("golden.toml").write_text(RECIPE, encoding="utf-8")
    log().write_parquet("log.parquet")
    request = Request(Path("golden.toml"), DATE, Path("workspace"))
    record = run_night(request, {})
    pipeline = Pipeline(request.recipe(), Stages(Workspace(Path("workspace"))))
    export = pipeline.export(Path("workspace/export/golden"), ExportSettings(users=None))
    publication = Publication(Path("workspace"), "golden")
    made = {kind: publication.artifact(publication.current(), kind) for kind in publication.current().artifacts}
    _without_the_machine(record)
    return {**made, "export": export, "folds": run_folds(pipeline, 2)}


def _without_the_machine(record: NightRecord) -> None:
    """Host, process and absolute paths say nothing about the form."""
    owner = {**record.owner, "machine": "machine", "process": 1, "user": "somebody"}
    request = {**record.request, "path": "golden.toml", "workspace": "workspace"}
    Nights(Path("workspace"), "golden").write(record.model_copy(update={"owner": owner, "request": request}))


def expected_of(made: dict[str, Artifact]) -> dict[str, object]:
    """What reading them must give."""
    lists = pl.read_parquet(made["candidates"].files("part-"))
    return {
        "formats": {kind: FORMATS[kind] for kind in made},
        "items": pl.read_parquet(made["dataset"].file("items.parquet"))["item_id"].to_list(),
        "list of user 0": lists.filter(pl.col("user_id") == 0)["item_id"].to_list(),
        "recall@5": made["measurements"].summary["metrics"]["recall@5"]["mean"],
        "recall@5 over folds": made["folds"].summary["metrics"]["recall@5"]["over_folds"]["mean"],
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        made = make()
        shutil.rmtree(FOLDER, ignore_errors=True)
        for kind, artifact in made.items():
            shutil.copytree(artifact.path, FOLDER / kind / artifact.path.name, ignore=shutil.ignore_patterns(LEFT_OUT))
        for folder in ("published", "nights"):
            shutil.copytree(Path("workspace") / folder, FOLDER / folder, ignore=shutil.ignore_patterns("*.lock", "*.prom"))
        (FOLDER / "expected.json").write_text(json.dumps(expected_of(made), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
