"""tune: finds what is better, goes on where it was stopped, and survives a trial that fails."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

pytest.importorskip("optuna", reason="the extra `tune` is not installed")
from retrieval.core.errors import ConflictError, InterruptedRunError, QualityGateError, UsageError
from retrieval.core.locks import exclusive
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recipe import read_recipe
from retrieval.stages.run import open_run
from retrieval.stages.tune import FinishedSearch, open_tuning, summary_of, table, tune

RECIPE = """
[data]
name = "ring"
interactions = {{ path = "{log}", time = "time", time_unit = "order" }}
[split]
protocol = "leave-last-out"
[model]
name = "youtube-dnn"
dimension = 8
history = 4
[train]
steps = 12
validate_every = 2
checkpoint_every = 4
patience = 0
precision = "float32"
examples = {{ batch_size = 8 }}
loss = {{ negatives = 16 }}
[train.optimizer]
schedule = "cosine"
[recall]
n = 20
[evaluate]
primary = "recall@2"
cutoffs = [2]
[machine]
threads = 1
device = "cpu"
"""
RATES = '"train.optimizer.learning_rate" = [1e-5, 0.05]\n"model.dropout" = { low = 0.0, high = 0.3, step = 0.1 }'
HALVING = '[search]\nmethod = "successive-halving"\ntrials = 6\nrungs = 3\nreduction = 2\n[space]\n'


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users who walk around a ring of 30 items: what comes next can be learned, at a rate that learns at all."""
    folder = tmp_path_factory.mktemp("ring")
    steps = pl.DataFrame({"user_id": range(60)}).join(pl.DataFrame({"time": range(10)}), how="cross")
    steps.with_columns(item_id=(pl.col("user_id") * 7 + pl.col("time")) % 30).write_parquet(folder / "log.parquet")
    path = folder / "ring.toml"
    path.write_text(RECIPE.format(log=folder / "log.parquet"), encoding="utf-8")
    return path


def searched(recipe: Path, workspace: Path, text: str, overrides: Sequence[str] = (), **more: Any) -> FinishedSearch:
    workspace.mkdir(exist_ok=True)
    space = workspace / "s.toml"
    space.write_text(text, encoding="utf-8")
    return tune(open_tuning(recipe, space, overrides, workspace), **more)


def random(trials: int, method: str = "random") -> str:
    return f'[search]\nmethod = "{method}"\ntrials = {trials}\n[space]\n{RATES}\n'


def outcomes(workspace: Path) -> list[dict]:
    """The record without its times."""
    trials = json.loads((workspace / "tune/ring/trials.json").read_text())["trials"]
    return [{**trial, "results": [{**each, "seconds": 0} for each in trial["results"]]} for trial in trials]


@pytest.mark.parametrize("text", [random(4), random(4, "tpe"), HALVING + RATES], ids=["random", "tpe", "successive-halving"])
def test_the_better_learning_rate_wins_and_its_recipe_has_its_model_already(recipe: Path, tmp_path: Path, text: str) -> None:
    found = searched(recipe, tmp_path, text, output=tmp_path / "best.toml")
    assert {trial.settings["train.optimizer.learning_rate"] for trial in found.trials} == {1e-5, 0.05}
    assert found.trials[0].settings["train.optimizer.learning_rate"] == 0.05
    best = open_run(read_recipe(tmp_path / "best.toml"), tmp_path)
    assert str(best.model_artifact.path) == found.model
    assert all(record.skipped for record in best.stages.records)
    assert best.model_artifact.summary["validation"]["recall@2"] == found.trials[0].value
    assert "recall@2" in table(found)
    assert json.loads(json.dumps(summary_of(found)))["best"] == found.trials[0].settings
    assert [path for path in (tmp_path / ".staging").iterdir() if path.is_dir()] == []


def test_the_model_of_a_halving_is_the_one_that_training_in_one_go_makes(recipe: Path, tmp_path: Path) -> None:
    found = searched(recipe, tmp_path / "halving", HALVING + RATES)
    assert [len(trial.results) for trial in found.trials] == [3, 2, 2, 1, 1, 1]
    assert [result.step for result in found.trials[0].results] == [4, 6, 12]
    alone = open_run(read_recipe(found.recipe), tmp_path / "alone").model_artifact
    assert weights(found.model) == weights(alone.path)


def weights(model: object) -> bytes:
    return Path(str(model), "model.safetensors").read_bytes()


def stop_after(monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    """A signal in the middle of a training: its checkpoint is there, its result is not."""
    original = Pipeline.train_until
    count = 0

    def stopping(self: Pipeline, stop: int | None):
        nonlocal count
        count += 1
        if count > calls:
            original(self, 3)
            raise InterruptedRunError("stopped", signal_number=15)
        return original(self, stop)

    monkeypatch.setattr(Pipeline, "train_until", stopping)


@pytest.mark.parametrize(("text", "calls"), [(random(4), 2), (random(4, "tpe"), 0), (HALVING + RATES, 3), (HALVING + RATES, 7)])
def test_stopped_and_gone_on_with_it_ends_as_if_never_stopped(recipe, tmp_path, monkeypatch, text: str, calls: int) -> None:
    whole = searched(recipe, tmp_path / "whole", text)
    with monkeypatch.context() as patch, pytest.raises(InterruptedRunError):
        stop_after(patch, calls)
        searched(recipe, tmp_path / "parts", text)
    resumed = searched(recipe, tmp_path / "parts", text)
    assert outcomes(tmp_path / "parts") == outcomes(tmp_path / "whole")
    assert resumed.recipe.read_text() == whole.recipe.read_text()
    assert weights(resumed.model) == weights(whole.model)


def test_more_trials_go_on_where_fewer_ended(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searched(recipe, tmp_path, random(3))
    trained: list[int | None] = []
    original = Pipeline.train_until
    monkeypatch.setattr(Pipeline, "train_until", lambda self, stop: (trained.append(stop), original(self, stop))[1])
    assert len(searched(recipe, tmp_path, random(5)).trials) == 5
    assert trained == [None, None]


def test_a_failing_trial_is_recorded_and_the_next_one_runs(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Pipeline.train_until

    def failing(self: Pipeline, stop: int | None):
        if self.recipe.train.optimizer.learning_rate < 0.01:
            raise QualityGateError("the loss is nan at step 3")
        return original(self, stop)

    monkeypatch.setattr(Pipeline, "train_until", failing)
    found = searched(recipe, tmp_path, HALVING + RATES)
    failed = [trial for trial in found.trials if trial.failed]
    assert [trial.settings["train.optimizer.learning_rate"] for trial in failed] == [1e-5] * len(failed) != []
    assert (failed[0].failed, failed[0].value) == ("the loss is nan at step 3", None)
    assert found.trials[0].value is not None
    assert found.trials[-1].failed
    only = '[space]\n"train.optimizer.learning_rate" = [1e-5, 1e-4]\n'
    with pytest.raises(QualityGateError, match="every trial failed"):
        searched(recipe, tmp_path / "all", only)


def test_settings_that_do_not_go_together_are_a_failed_trial(recipe: Path, tmp_path: Path) -> None:
    text = '[search]\ntrials = 4\n[space]\n"model" = [{ name = "youtube-dnn" }, { name = "comirec-sa" }]\n"model.layers" = [0, 1]\n'
    found = searched(recipe, tmp_path, text)
    assert {trial.settings["model"]["name"] for trial in found.trials if trial.failed} == {"comirec-sa"}
    assert found.trials[0].settings["model"]["name"] == "youtube-dnn"


def test_a_space_that_is_used_up_ends_the_search(recipe: Path, tmp_path: Path) -> None:
    found = searched(recipe, tmp_path, '[search]\ntrials = 9\n[space]\n"train.optimizer.learning_rate" = [1e-5, 0.05]\n')
    assert sorted(trial.settings["train.optimizer.learning_rate"] for trial in found.trials) == [1e-5, 0.05]


def test_another_search_in_the_same_folder_is_refused(recipe: Path, tmp_path: Path) -> None:
    searched(recipe, tmp_path, random(1))
    with pytest.raises(ConflictError, match="another search") as caught:
        searched(recipe, tmp_path, random(1), ["model.history=3"])
    assert "--set name=" in str(caught.value)
    other = searched(recipe, tmp_path, random(1), ["model.history=3", "name=other"])
    assert read_recipe(other.recipe).model.history == 3
    assert other.recipe == tmp_path / "tune/other/recipe.toml"


def test_two_searches_at_once_are_refused(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "tune/ring").mkdir(parents=True)
    with exclusive(tmp_path / "tune/ring/.lock", "test"), pytest.raises(ConflictError, match="is at it"):
        searched(recipe, tmp_path, random(1))


def test_an_output_that_is_there_is_refused_before_the_first_trial(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "best.toml").touch()
    with pytest.raises(UsageError, match="--overwrite"):
        searched(recipe, tmp_path, random(1), output=tmp_path / "best.toml")
    assert not (tmp_path / "tune").exists()
    searched(recipe, tmp_path, random(1), output=tmp_path / "best.toml", overwrite=True)
    assert read_recipe(tmp_path / "best.toml").name == "ring-tuned"
