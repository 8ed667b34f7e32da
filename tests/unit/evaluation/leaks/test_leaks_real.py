"""Splits of real logs pass, whatever the protocol."""

from pathlib import Path

import polars as pl
import pytest

from retrieval.core.artifacts import Workspace
from retrieval.data.dataset import Dataset
from retrieval.data.prepare import prepare
from retrieval.data.settings import DataSettings, SplitSettings
from retrieval.evaluation.leaks.check import check_leaks
from retrieval.evaluation.leaks.datasets import evidence_of

DAYS = {"valid_seconds": 10 * 86_400, "test_seconds": 10 * 86_400}
SPLITS = [
    {"protocol": "comirec"},
    {"protocol": "leave-last-out"},
    {"protocol": "global-time", **DAYS},
    {"protocol": "global-time", "target": "random", **DAYS},
    {"protocol": "rolling-days", "fold": 2, "cold_items": True, **DAYS},
]


@pytest.mark.realdata
@pytest.mark.parametrize("split", SPLITS, ids=lambda split: "-".join(map(str, split.values())))
@pytest.mark.parametrize("name", ["ml-100k", "movietweetings-100k"])
def test_no_leak_is_found_in_a_clean_split(real_data: Path, tmp_path: Path, name: str, split: dict) -> None:
    fields = {"year": "numeric"} if name == "ml-100k" else {}
    data = {
        "name": name,
        "interactions": {"path": str(real_data / name / "interactions.parquet"), "order": "order", "weight": "rating"},
        "items": {"path": str(real_data / name / "items.parquet"), "fields": fields},
    }
    workspace, settings = Workspace(tmp_path), SplitSettings.model_validate(split)
    with workspace.create("dataset", "clean", settings={}, inputs={}) as staged:
        prepare(DataSettings.model_validate(data), settings, staged)
    artifact = workspace.open("dataset", "clean")
    found = check_leaks(evidence_of(Dataset.open(artifact), settings, pl.read_parquet(artifact.file("truth.parquet")), in_seconds=True))
    assert found.findings == ()
    assert artifact.summary["split"]["sequential"]["low"] > 0
