"""Artifacts that lie in the repository are read as they were written: a format does not change without its number."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from retrieval.core.artifacts import Artifact, open_artifact
from retrieval.core.publication import Publication
from retrieval.data.dataset import Dataset
from retrieval.evaluation.measurements import Measurements
from retrieval.index.settings import IndexSettings
from retrieval.stages import train
from retrieval.stages.audience import everyone
from retrieval.stages.build_index import load_vectors, open_index
from retrieval.stages.calibrate import read_calibration
from retrieval.stages.encode import EncodedHistories
from retrieval.stages.ensure import FORMATS
from retrieval.stages.recipe import parse_recipe

FOLDER = Path(__file__).parent / "artifacts"
EXPECTED = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
READERS: dict[str, Callable[[], object]] = {}


def artifact(kind: str) -> Artifact:
    (path,) = (FOLDER / kind).iterdir()
    found = open_artifact(path)
    found.verify()
    return found


def reads(kind: str) -> Callable[[Callable[[], object]], Callable[[], object]]:
    def register(reader: Callable[[], object]) -> Callable[[], object]:
        READERS[kind] = reader
        return reader

    return register


@reads("dataset")
def dataset() -> Dataset:
    found = Dataset.open(artifact("dataset"))
    assert found.sequences.n_events == EXPECTED["events"]
    assert found.catalog.item_ids.to_list() == EXPECTED["items"]
    assert found.sequences.history(0).tolist() == list(range(8))
    return found


@reads("model")
def model() -> None:
    """Its weights give the vectors that were written with it."""
    weights = artifact("model")
    data = {"name": "ring", "interactions": {"path": "gone.parquet"}}
    recipe = parse_recipe({"data": data, "model": weights.manifest.settings["model"], "machine": {"device": "cpu"}}, "golden")
    opened = train.open_model(weights, recipe, dataset())
    found = opened.all_items().detach().numpy()
    np.testing.assert_allclose(found, load_vectors(artifact("vectors")), rtol=0, atol=1e-6)
    encoded = next(EncodedHistories(opened, dataset()).batches(everyone(dataset()), 30))
    assert encoded.vectors.shape == (30, 2, 8)


@reads("vectors")
def vectors() -> None:
    assert load_vectors(artifact("vectors")).shape == (12, 8)


@reads("index")
def index() -> None:
    """It finds what a plain product finds: all lists are visited."""
    pytest.importorskip("faiss", reason="FAISS is not installed")
    found = artifact("index")
    settings = IndexSettings.model_validate(found.manifest.settings).model_copy(update={"threads": 1})
    opened, items = open_index(found, artifact("vectors"), settings), load_vectors(artifact("vectors"))
    hits = opened.search(np.asarray(items[:4]), 5)
    expected = np.argsort(-(items[:4] @ items.T), axis=1, kind="stable")[:, :5]
    assert [sorted(row) for row in hits.rows.tolist()] == [sorted(row) for row in expected.tolist()]


@reads("calibration")
def calibration() -> None:
    assert read_calibration(artifact("calibration"))


@reads("candidates")
def candidates() -> None:
    lists = pl.read_parquet(artifact("candidates").files("part-"))
    assert lists.filter(pl.col("user_id") == 0)["item_id"].to_list() == EXPECTED["list of user 0"]
    assert lists.columns == ["user_id", "item_id", "rank", "score", "interest"]


@reads("measurements")
def measurements() -> None:
    found = artifact("measurements")
    measured = Measurements.read(found.file)
    assert measured.summary.metrics["recall@5"].mean == pytest.approx(EXPECTED["recall@5"])
    assert measured.per_user["recall@5"].mean() == pytest.approx(EXPECTED["recall@5"])


@reads("export")
def export() -> None:
    assert pl.read_parquet(artifact("export").files("items/"))["item_id"].to_list() == EXPECTED["items"]


@pytest.mark.parametrize("kind", sorted(READERS))
def test_what_was_written_in_this_format_is_read(kind: str) -> None:
    written = EXPECTED["formats"][kind]
    assert FORMATS[kind] >= written
    if FORMATS[kind] > written:
        pytest.skip(f"{kind} has a new format; write its golden artifact with python tests/golden/make_artifacts.py")
    READERS[kind]()


def test_the_published_version_is_found() -> None:
    publication = Publication(FOLDER, "golden")
    version = publication.current()
    assert (version.number, version.date) == (1, "2024-01-01")
    for kind in version.artifacts:
        if kind != "export":
            publication.artifact(version, kind).verify()


def test_no_path_of_the_machine_that_wrote_them_is_in_them() -> None:
    for path in FOLDER.rglob("*.json"):
        assert "/tmp" not in path.read_text(encoding="utf-8"), path
