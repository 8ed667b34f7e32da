"""Every recipe runs end to end, and what others script against is where it should be."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

ROOT = Path(__file__).parents[2]
SEARCHES = sorted((ROOT / "pipelines").rglob("*.search.toml"))
RECIPES = sorted(set((ROOT / "pipelines").rglob("*.toml")) - set(SEARCHES))
QUICK = [
    "train.steps=20",
    "train.validate_every=10",
    "train.examples.batch_size=16",
    "train.loss.negatives=64",
    'evaluate.baselines=["popular"]',
    "evaluate.resamples=50",
    "report.map_items=50",
    'evaluate.frontier_builders=["category_greedy"]',
]
SMALL = ["generate.users=300", "generate.items=300"]


def with_set(values: list[str]) -> list[str]:
    return [word for value in values for word in ("--set", value)]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT / "pipelines")))
def test_the_recipe_runs(path: Path, retrieval, data_folder: Path, tmp_path: Path) -> None:
    popular = path.stem == "popular"
    values = ([] if popular else QUICK[:4]) + QUICK[4:]
    values += [*SMALL, 'evaluate.baselines=["popular", "k1"]'] if path.stem == "sample" else []
    stages = {"dataset", "model", "vectors", "index", "candidates", "measurements", "report"}
    if "rescored" in path.stem:
        values, stages = [*values, "rescore.examples=200", "rescore.training.steps=4", "rescore.history=10"], {*stages, "rescorer"}
    done = retrieval("run", path, "--workspace", tmp_path, "--json", *with_set(values), RETRIEVAL_DATA=data_folder)
    assert done.code == 0, done.err
    found = done.json
    assert set(found["artifacts"]) == stages
    assert 0 <= found["metrics"]["recall@50"]["low"] <= found["metrics"]["recall@50"]["mean"] <= found["metrics"]["recall@50"]["high"] <= 1
    assert all(stage["seconds"] >= 0 and stage["peak_memory_bytes"] > 0 for stage in found["stages"])
    assert Path(found["report"]).is_file()


@pytest.mark.parametrize("path", SEARCHES, ids=lambda path: str(path.relative_to(ROOT / "pipelines")))
def test_the_search_file_runs(path: Path, retrieval, data_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="the extra `tune` is not installed")
    recipe, output = path.with_name(path.name.replace(".search", "")), tmp_path / "best.toml"
    values = ["train.steps=12", "train.validate_every=2", *QUICK[2:], *SMALL]
    done = retrieval("tune", recipe, "-w", tmp_path, "--output", output, "--json", *with_set(values), RETRIEVAL_DATA=data_folder)
    assert done.code == 0, done.err
    assert done.json["recipe"] == str(output)
    ran = retrieval("run", output, "-w", tmp_path, "--json", "--set", 'evaluate.baselines=["popular"]', RETRIEVAL_DATA=data_folder)
    assert ran.code == 0, ran.err
    assert [stage["stage"] for stage in ran.json["stages"] if stage["skipped"]][:2] == ["prepare", "train"]
    assert retrieval("tune", recipe, "-w", tmp_path, "--output", output, *with_set(values), RETRIEVAL_DATA=data_folder).code == 2


def test_what_lies_where(workspace: Path) -> None:
    for kind in ("dataset", "model", "vectors", "index", "candidates", "measurements", "report"):
        manifests = list((workspace / kind).glob("*/manifest.json"))
        assert manifests
        assert all(json.loads(path.read_text())["status"] == "complete" for path in manifests)
    truth = pl.read_parquet(next((workspace / "dataset").glob("*/truth.parquet")))
    assert truth.columns == ["user_id", "item_id", "split"]
    assert set(truth["split"].unique()) == {"valid", "test"}
    for folder in (workspace / "candidates").iterdir():
        lists = pl.read_parquet(folder / "part-*.parquet")
        assert lists.columns == ["user_id", "item_id", "rank", "score", "interest"]
        ranks = lists.group_by("user_id").agg(pl.col("rank").min().alias("first"), pl.col("rank").max().alias("last"), pl.len())
        assert ranks.filter((pl.col("first") != 1) | (pl.col("last") != pl.col("len"))).is_empty()
        assert lists.select("user_id", "item_id").is_duplicated().sum() == 0
        assert set(truth["user_id"]) == set(lists["user_id"])


def test_finished_stages_are_skipped(retrieval, recipe: Path, workspace: Path) -> None:
    found = retrieval("run", recipe, "--workspace", workspace, "--json").json
    assert all(stage["skipped"] for stage in found["stages"])


def test_a_changed_setting_redoes_what_depends_on_it_and_nothing_else(retrieval, recipe: Path, workspace: Path) -> None:
    found = retrieval("run", recipe, "--workspace", workspace, "--json", "--set", "recall.lambda=0.5").json
    redone = {stage["stage"] for stage in found["stages"] if not stage["skipped"]}
    assert {"recall", "evaluate", "report"} <= redone
    assert redone.isdisjoint({"prepare", "train", "embed", "build-index", "popular:train"})


def test_the_same_recipe_gives_the_same_bytes(retrieval, recipe: Path, workspace: Path, tmp_path: Path) -> None:
    retrieval("run", recipe, "--workspace", tmp_path)
    for kind in ("dataset", "model", "vectors", "index", "candidates", "measurements"):
        for path in (workspace / kind).glob("*/manifest.json"):
            other = tmp_path / path.relative_to(workspace)
            if other.is_file():
                assert json.loads(path.read_text())["files"] == json.loads(other.read_text())["files"]
    assert {path.name for path in (tmp_path / "candidates").iterdir()} <= {path.name for path in (workspace / "candidates").iterdir()}


def test_evaluate_agrees_with_the_run_on_its_own_files(retrieval, recipe: Path, workspace: Path) -> None:
    run = retrieval("run", recipe, "--workspace", workspace, "--json").json
    dataset, candidates = run["artifacts"]["dataset"]["path"], run["artifacts"]["candidates"]["path"]
    done = retrieval(
        "evaluate", "--candidates", candidates, "--truth", f"{dataset}/truth.parquet", "--items", f"{dataset}/items.parquet", "--json"
    )
    # Files of candidates, truth and items tell nothing of histories and vectors.
    more = {name for name in run["metrics"] if name.startswith(("calibration", "distance"))}
    assert more
    assert done.json["metrics"] == {name: value for name, value in run["metrics"].items() if name not in more}


def test_recall_serves_everyone_or_those_who_are_named(retrieval, recipe: Path, workspace: Path, tmp_path: Path) -> None:
    everyone = retrieval("recall", recipe, "--workspace", workspace, "--json").json
    users = pl.read_parquet(next((workspace / "dataset").glob("*/users.parquet")))["user_id"]
    lists = pl.read_parquet(f"{everyone['path']}/part-*.parquet")
    assert set(lists["user_id"]) == set(users)
    (tmp_path / "users.txt").write_text(f"{users[5]}\n{users[2]}\n")
    some = retrieval("recall", recipe, "--workspace", workspace, "--users", tmp_path / "users.txt", "--json").json
    named = pl.read_parquet(f"{some['path']}/part-*.parquet")
    assert_frame_equal(named, lists.filter(pl.col("user_id").is_in([users[5], users[2]])))


def test_seen_items_are_left_out_and_the_block_list_holds(
    retrieval, recipe: Path, workspace: Path, small_log: Path, tmp_path: Path
) -> None:
    items = pl.read_parquet(small_log / "items.parquet")["item_id"].sort()
    blocked = items[:50]
    (tmp_path / "blocked.txt").write_text("\n".join(map(str, blocked)))
    done = retrieval("recall", recipe, "--workspace", workspace, "--json", "--set", f'recall.filter.block=["{tmp_path}/blocked.txt"]').json
    lists = pl.read_parquet(f"{done['path']}/part-*.parquet")
    seen = pl.read_parquet(small_log / "interactions").select("user_id", "item_id").unique()
    assert lists.join(seen, on=["user_id", "item_id"], how="semi").is_empty()
    assert lists.filter(pl.col("item_id").is_in(blocked.to_list())).is_empty()
    assert not lists.is_empty()


def test_exported_vectors_come_back_with_the_same_lists(retrieval, recipe: Path, workspace: Path, tmp_path: Path) -> None:
    run = retrieval("run", recipe, "--workspace", workspace, "--json").json
    for name, users in (("now", "all"), ("cut", "held-out")):
        done = retrieval("embed", recipe, "--workspace", workspace, "--export", tmp_path / name, "--users", users, "--format", "npy")
        assert done.code == 0, done.err
    paths = f'items = "{tmp_path}/now/items", users = "{tmp_path}/now/users", held_out = "{tmp_path}/cut/users"'
    back = retrieval("run", recipe, "--workspace", workspace, "--json", "--set", f'model={{ name = "imported", {paths} }}')
    assert back.code == 0, back.err
    assert back.json["metrics"] == run["metrics"]
    assert [each["stage"] for each in back.json["stages"]][:3] == ["prepare", "import", "embed"]


def test_explain_names_history_interests_and_reasons(retrieval, recipe: Path, workspace: Path, small_log: Path, tmp_path: Path) -> None:
    user = pl.read_parquet(small_log / "interactions")["user_id"].min()
    (found,) = retrieval("explain", recipe, "--user", user, "--workspace", workspace, "--json").json["users"]
    assert found["events"] > 0
    assert len(found["interests"]) == 3
    assert all(item["driven_by"] for item in found["items"])
    assert "because of" in retrieval("explain", recipe, "--user", user, "--workspace", workspace).out
    page = tmp_path / "gallery.html"
    done = retrieval("explain", recipe, "--sample", 2, "--page", page, "--workspace", workspace, "--json")
    assert all(f"User {user['user']}</h3>" in page.read_text(encoding="utf-8") for user in done.json["users"])
    assert retrieval("explain", recipe, "--workspace", workspace).code == 2


def test_compare_names_the_better_run(retrieval, recipe: Path, workspace: Path, tmp_path: Path) -> None:
    report = Path(retrieval("run", recipe, "--workspace", workspace, "--json").json["report"]).parent
    page = tmp_path / "compare.html"
    found = retrieval("compare", f"{report}:popular", recipe, "--workspace", workspace, "--page", page, "--json").json
    assert [system["name"] for system in found["systems"]] == ["popular", found["pairs"][0]["name"]]
    said = retrieval("compare", f"{report}:popular", f"mine={report}", "--workspace", workspace)
    assert "recall@" in said.out
    assert "model.name" in said.out
    assert "Verdict</h2>" in page.read_text(encoding="utf-8")
    refused = retrieval("compare", report, report, "--workspace", workspace)
    assert refused.code == 2
    assert "the same measurements" in refused.error


def test_config_doctor_and_inspect_answer(retrieval, recipe: Path, workspace: Path) -> None:
    resolved = retrieval("config", recipe, "--set", "model.interests=7").json
    assert resolved["model"]["interests"] == 7
    assert resolved["recall"]["lambda"] == 0.0
    assert retrieval("doctor", "--json").json["torch"]["device"] in ("cpu", "cuda")
    index = next((workspace / "index").iterdir())
    assert "every file has the sha256" in retrieval("inspect", index).out


def test_an_approximate_index_is_measured_and_gated(retrieval, recipe: Path, workspace: Path) -> None:
    settings = with_set(["index.factory=IVF8,Flat", "index.nprobe=1", "index.choose.n=10"])
    built = retrieval("build-index", recipe, "--workspace", workspace, "--json", *settings).json
    assert 0 < built["summary"]["recall@10"] < 1
    refused = retrieval("build-index", recipe, "--workspace", workspace, *settings, "--set", "index.min_recall=0.999")
    assert refused.code == 5
    assert "of the exact result" in refused.error


def test_lists_have_the_same_bytes_whatever_the_threads(retrieval, recipe: Path, workspace: Path, tmp_path: Path) -> None:
    shutil.copytree(workspace, tmp_path / "w")
    shutil.rmtree(tmp_path / "w/candidates")
    settings = with_set(["recall.threads=2", "machine.threads=1"])
    again = retrieval("recall", recipe, "--held-out", "--workspace", tmp_path / "w", "--json", *settings).json
    files = [json.loads((root / "candidates" / again["id"] / "manifest.json").read_text())["files"] for root in (workspace, tmp_path / "w")]
    assert files[0] == files[1]
