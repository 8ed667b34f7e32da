"""Artifacts that lie in the repository are read as they were written: a format does not change without its number."""

import contextlib
import hashlib
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from retrieval.core.artifacts import MANIFEST, Artifact, Manifest, open_artifact
from retrieval.core.errors import IntegrityError
from retrieval.core.formats import FORMATS
from retrieval.core.publication import Publication
from retrieval.core.sealed import read_sealed, sealed_text
from retrieval.data.dataset import Dataset
from retrieval.evaluation.folds import FoldedSummary
from retrieval.evaluation.measurements import Measurements
from retrieval.index.settings import IndexSettings
from retrieval.report.content import ReportContent
from retrieval.stages import train
from retrieval.stages.audience import everyone
from retrieval.stages.build_index import load_vectors, open_index
from retrieval.stages.calibrate import read_calibration
from retrieval.stages.encode import EncodedHistories
from retrieval.stages.nightly.gates import GATES
from retrieval.stages.nightly.records import Nights
from retrieval.stages.recipe import Recipe, parse_recipe
from retrieval.stages.rescore import PoolRescorer

FOLDER = Path(__file__).parent / "artifacts"
EXPECTED = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
READERS: dict[str, Callable[[], object]] = {}
WITHOUT = {"inputs"}
"""Copies of a store's objects under their own names; there is no form to keep."""
_spec = importlib.util.spec_from_file_location("make_artifacts", Path(__file__).parent / "make_artifacts.py")
make_artifacts = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_artifacts)


def artifact(kind: str) -> Artifact:
    (path,) = (FOLDER / kind).iterdir()
    found = open_artifact(path)
    for name in set(found.manifest.files) - {make_artifacts.LEFT_OUT}:
        found.file(name)
    return found


def recipe_of(weights: Artifact, **more: Any) -> Recipe:
    data = {"name": "ring", "interactions": {"path": "gone.parquet"}}
    return parse_recipe({"data": data, "model": weights.manifest.settings["model"], "machine": {"device": "cpu"}, **more}, "golden")


def reads(kind: str) -> Callable[[Callable[[], object]], Callable[[], object]]:
    def register(reader: Callable[[], object]) -> Callable[[], object]:
        READERS[kind] = reader
        return reader

    return register


@reads("dataset")
def dataset() -> Dataset:
    found = Dataset.open(artifact("dataset"))
    assert found.sequences.n_events == 240
    assert found.catalog.item_ids.to_list() == EXPECTED["items"]
    assert found.sequences.history(0).tolist() == list(range(8))
    return found


@reads("model")
def model() -> None:
    """Its weights give the vectors that were written with it."""
    weights = artifact("model")
    opened = train.open_model(weights, recipe_of(weights), dataset())
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


@reads("rescorer")
def rescorer() -> None:
    found = artifact("rescorer")
    rescore = found.manifest.settings["rescore"]
    opened = PoolRescorer(found, recipe_of(artifact("model"), rescore=rescore), artifact("vectors"))
    assert opened.model.items.n_items == 12
    assert found.summary["rescorer"] == "din"


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


@reads("folds")
def folds() -> None:
    found = artifact("folds")
    summary = FoldedSummary.model_validate(json.loads(found.file("summary.json").read_text(encoding="utf-8")))
    assert summary.metrics["recall@5"].over_folds.mean == EXPECTED["recall@5 over folds"]


@reads("report")
def report() -> None:
    found = artifact("report")
    content = ReportContent.model_validate(json.loads(found.file("report.json").read_text(encoding="utf-8")))
    assert content.schema_version == 1
    assert "recall@5" in found.file("report.md").read_text(encoding="utf-8")


@reads("export")
def export() -> None:
    assert pl.read_parquet(artifact("export").files("items/"))["item_id"].to_list() == EXPECTED["items"]


@pytest.mark.parametrize("kind", sorted(READERS))
def test_what_was_written_in_this_format_is_read(kind: str) -> None:
    assert FORMATS[kind] == EXPECTED["formats"][kind], "a new format: python tests/golden/make_artifacts.py"
    READERS[kind]()


def test_every_kind_has_a_golden_artifact() -> None:
    assert set(FORMATS) == set(READERS) | WITHOUT


def test_the_published_version_is_found() -> None:
    publication = Publication(FOLDER, "golden")
    version = publication.current()
    assert (version.number, version.date) == (1, "2024-01-08")
    assert set(version.artifacts) == set(READERS) - {"export", "folds"}
    for kind in version.artifacts:
        assert publication.artifact(version, kind).id == artifact(kind).id


def test_the_record_of_the_night_is_read() -> None:
    (record,) = Nights(FOLDER, "golden").all()
    assert (record.status, record.exit_code, record.published, record.rows) == ("published", 0, 1, 240)
    assert {gate.name for gate in record.gates} <= set(GATES)
    assert record.artifacts >= {(kind, each.id) for kind, each in Publication(FOLDER, "golden").current().artifacts.items()}


def forms(folder: Path) -> dict[str, Any]:
    """Of every file: columns and types of tables, types of arrays, keys and types of JSON; ids and numbers of rows are left open."""
    found = [path for kind in (*READERS, "published", "nights") for path in (folder / kind).rglob("*") if path.is_file()]
    kept = [path for path in found if path.suffix not in (".lock", ".prom", ".html")]
    return {"/".join("ID" if len(part) == 16 else part for part in path.relative_to(folder).parts): form_of(path) for path in kept}


def form_of(path: Path) -> Any:
    if path.suffix == ".parquet":
        return str(pl.read_parquet_schema(path))
    if path.suffix == ".npy":
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        return str(array.dtype), array.ndim
    return json.loads(path.read_text(encoding="utf-8")) if path.suffix == ".json" else None


def lost(now: Any, then: Any, place: str = "") -> list[str]:
    """What was there then and is not there now, or is something else; a report quotes the recipe, whose settings are no form of its own."""
    if place.endswith("/report.json/run/config"):
        return []
    if isinstance(then, dict) and isinstance(now, dict):
        missing = [f"{place}/{name}" for name in then if name not in now]
        return missing + [each for name in then if name in now for each in lost(now[name], then[name], f"{place}/{name}")]
    if isinstance(then, (list, tuple)) and isinstance(now, (list, tuple)):
        return lost(now[0], then[0], f"{place}/*") if now and then else []
    plain = {int: float}
    kinds = [plain.get(type(each), type(each)) for each in (now, then) if each is not None]
    return [place] if len(set(kinds)) > 1 or (place.endswith(".parquet") and now != then) else []


def test_what_is_made_today_has_the_same_form(tmp_path: Path) -> None:
    """More may be said than then, and nothing less; a table has the columns that it had."""
    with contextlib.chdir(tmp_path):
        for kind, each in make_artifacts.make().items():
            # Folds make others of a kind; the golden one is what was published.
            for other in {path.resolve() for path in (Path("workspace") / kind).iterdir() if path.is_dir()} - {each.path.resolve()}:
                shutil.rmtree(other)
        assert lost(forms(Path("workspace")), forms(FOLDER)) == []


@pytest.mark.parametrize("kind", sorted(READERS))
def test_a_newer_format_is_refused_in_a_line(kind: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(artifact(kind).path, tmp_path / kind))
    newer = read_sealed(Manifest, copy / MANIFEST).model_copy(update={"format": FORMATS[kind] + 1})
    (copy / MANIFEST).write_text(sealed_text(newer), encoding="utf-8")
    with pytest.raises(IntegrityError) as caught:
        open_artifact(copy)
    said = str(caught.value)
    assert f"{copy / MANIFEST}: {kind} of format {FORMATS[kind] + 1}; expected format {FORMATS[kind]}; another version" in said
    assert "read it with that one, or delete it and run again" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "name", ["nights/golden/2024-01-08.001.json", "published/golden/versions/000001.json", "published/golden/current.json"]
)
def test_a_newer_record_is_refused_and_not_called_damaged(name: str, tmp_path: Path) -> None:
    """Whatever else a newer version writes into it."""
    for folder in ("nights", "published"):
        shutil.copytree(FOLDER / folder, tmp_path / folder)
    path = tmp_path / name
    values = {**json.loads(path.read_text(encoding="utf-8")), "schema_version": 9, "more": 1}
    if "seal" in values:
        values["seal"] = "0" * 64
        values["seal"] = hashlib.sha256(json.dumps(values, indent=2).encode()).hexdigest()
    path.write_text(json.dumps(values, indent=2), encoding="utf-8")
    with pytest.raises(IntegrityError, match=r"schema version 9; expected schema version 1; another version") as caught:
        _ = Nights(tmp_path, "golden").last(), Publication(tmp_path, "golden").version(1), Publication(tmp_path, "golden").current()
    assert str(path) in str(caught.value)


def test_no_path_of_the_machine_that_wrote_them_is_in_them() -> None:
    for path in FOLDER.rglob("*.json"):
        assert "/tmp" not in path.read_text(encoding="utf-8"), path
