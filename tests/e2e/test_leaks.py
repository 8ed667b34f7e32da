"""The leak checker through the command line, and in a run."""

import json
from pathlib import Path

import polars as pl
import pytest


def test_a_run_says_that_nothing_leaks(retrieval, recipe: Path, workspace: Path) -> None:
    run = retrieval("run", recipe, "--workspace", workspace, "--json").json
    measured = Path(run["artifacts"]["measurements"]["path"])
    leaks = json.loads((measured / "leaks.json").read_text())
    assert leaks["verdict"].startswith("No leak")
    assert leaks["checked"]["held-out-user-trained"] == "clean"
    report = json.loads((Path(run["report"]).parent / "report.json").read_text())
    assert report["knowledge"]["verdict"] == leaks["verdict"]
    assert set(report["knowledge"]["may_know"]) == {"events", "validation", "test", "items", "popularity", "item fields"}
    assert "sequential" in report["knowledge"]["sequential"] or "order" in report["knowledge"]["sequential"]
    assert leaks["verdict"] in (Path(run["report"]).parent / "report.md").read_text()


@pytest.mark.parametrize("protocol", ["comirec", "leave-last-out", "global-time", "rolling-days"])
def test_the_generated_log_has_no_leak_under_any_protocol(retrieval, recipe: Path, tmp_path: Path, protocol: str) -> None:
    days = ["--set", f"split.protocol={protocol}", "--set", "split.test_seconds=172800", "--set", "split.fold=1"]
    done = retrieval("check-leaks", recipe, "--workspace", tmp_path, "--json", *days)
    assert done.code == 0, done.err
    assert done.json["findings"] == []


def test_a_leak_leaves_with_the_code_of_a_gate(retrieval, recipe: Path, workspace: Path, tmp_path: Path) -> None:
    run = retrieval("run", recipe, "--workspace", workspace, "--json").json
    truth = pl.read_parquet(Path(run["artifacts"]["dataset"]["path"]) / "truth.parquet")
    truth.with_columns(timestamp=pl.lit(1_700_000_000)).write_parquet(tmp_path / "truth.parquet")
    truth.with_columns(timestamp=pl.lit(1_700_000_000)).write_parquet(tmp_path / "train.parquet")
    tables = ("--train", tmp_path / "train.parquet", "--truth", tmp_path / "truth.parquet")
    leaky = retrieval("check-leaks", *tables, "--cut", "2023-01-01")
    assert leaky.code == 5
    assert "test-target-trained" in leaky.error
    assert "event-after-cut: training events: a training event happened after" in leaky.out
    assert retrieval("check-leaks").code == 2
    assert retrieval("check-leaks", *tables, "--cut", "soon").code == 2
