"""What a model has counted is recounted."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from retrieval.core.artifacts import Artifact, Manifest, sha256_of, write_manifest
from retrieval.evaluation.leaks.findings import LeakReport
from retrieval.stages.check_leaks import check_pipeline, check_run
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recipe import parse_recipe
from retrieval.stages.run import open_run


def pipeline(folder: Path, model: dict) -> Pipeline:
    recipe = {
        "generate": {"users": 120, "items": 600, "days": 20, "catalog": {"categories": 4, "subcategories": 2}},
        "data": {
            "name": "generated",
            "interactions": {"path": "generated/interactions", "kind": ""},
            "items": {
                "path": "generated/items.parquet",
                "categories": "categories",
                "fields": {"category": {"kind": "multi", "column": "categories"}},
            },
        },
        "split": {"protocol": "global-time", "valid_seconds": 86_400, "test_seconds": 2 * 86_400},
        "model": model,
        "train": {"steps": 2, "validate_every": 2, "examples": {"batch_size": 8}, "loss": {"negatives": 16}},
    }
    return open_run(parse_recipe(recipe, "leaks.toml"), folder)


def with_tensor(model: Artifact, name: str, change) -> None:
    """The model's file with another tensor, its manifest made to agree."""
    path = model.path / "model.safetensors"
    tensors = load_file(path)
    tensors[name] = change(tensors[name])
    path.unlink()
    save_file(tensors, path)
    manifest = model.manifest.model_dump(mode="json")
    manifest["files"]["model.safetensors"] = {"sha256": sha256_of(path), "size": path.stat().st_size}
    write_manifest(model.path, Manifest.model_validate(manifest))


PRIOR = {"name": "youtube-dnn", "dimension": 8, "history": 10, "prior": {"hours": 24, "weight": 1}}


@pytest.mark.parametrize(
    ("model", "tensor"),
    [
        ({"name": "popular"}, "counts"),
        (PRIOR, "prior"),
        ({**PRIOR, "fields": {"items": ["category"]}}, "prior"),
    ],
)
def test_what_a_model_has_counted_is_recounted(tmp_path: Path, model: dict, tensor: str) -> None:
    run = pipeline(tmp_path, model)
    made = run.model_artifact
    clean = check_run(run.recipe, run.dataset_artifact, made)
    assert clean.clean
    with_tensor(made, tensor, lambda value: value + torch.linspace(0, 2, len(value)))
    opened = run.stages.workspace.open("model", made.id)
    found: LeakReport = check_run(run.recipe, run.dataset_artifact, opened, baseline=True)
    assert [finding.kind for finding in found.findings] == ["popularity-from-future"]
    assert tensor.replace("counts", "popularity model") in found.findings[0].where
    assert found.checked["target-in-history"] == "not applicable"


def test_a_recipe_is_checked_before_anything_is_trained(tmp_path: Path) -> None:
    run = pipeline(tmp_path, {"name": "popular"})
    assert check_pipeline(run).clean
    assert run.stages.workspace.find("model", run.model_id) is None
