"""The winner's recipe is the recipe's own text with other values."""

import tomllib
from pathlib import Path

import pytest

pytest.importorskip("tomlkit")
from retrieval.core.errors import UsageError
from retrieval.core.settings import with_values
from retrieval.stages.recipe import read_recipe
from retrieval.stages.tuned_recipe import TunedRecipe, refuse_to_overwrite

RECIPE = """# What it is.
[train]
steps = 900  # long
examples = { batch_size = 8 }
[train.loss]
negatives = 16
[data]
name = "log"
interactions = { path = "${TUNED_FOLDER}/log.parquet" }
[train.optimizer]
weight_decay = 0.1
"""
CHANGES = {
    "train.steps": 40,
    "train.examples.batch_size": 4,
    "train.loss.readout": "hard",
    "train.optimizer.learning_rate": 0.050138813984096864,
    "model": {"name": "mind", "iterations": 2},
    "model.dropout": 0.25,
    "data.interactions.time": "at",
}


@pytest.fixture
def tuned(tmp_path: Path) -> TunedRecipe:
    source = tmp_path / "r.toml"
    source.write_text(RECIPE, encoding="utf-8")
    return TunedRecipe(source, CHANGES, "r-tuned", ["Found by chance."])


def test_it_holds_the_recipe_and_the_changes(tuned: TunedRecipe) -> None:
    expected = with_values({**tomllib.loads(RECIPE), "name": "r-tuned"}, CHANGES, "test")
    assert tomllib.loads(tuned.text()) == expected
    assert tomllib.loads(tuned.text())["train"]["optimizer"]["learning_rate"] == CHANGES["train.optimizer.learning_rate"]


def test_comments_and_variables_stay_and_its_origin_stands_first(tuned: TunedRecipe) -> None:
    lines = tuned.text().splitlines()
    assert lines[0] == "# Found by chance."
    assert "# What it is." in lines
    assert "steps = 40  # long" in lines
    assert "${TUNED_FOLDER}/log.parquet" in tuned.text()


def test_it_is_a_recipe(tuned: TunedRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNED_FOLDER", "/logs")
    tuned.write(tmp_path / "deep/tuned.toml")
    recipe = read_recipe(tmp_path / "deep/tuned.toml")
    assert (recipe.name, recipe.model.name, recipe.model.dropout) == ("r-tuned", "mind", 0.25)
    assert recipe.data.interactions.path == "/logs/log.parquet"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["tuned.toml"]


def test_a_name_that_is_there_is_replaced(tuned: TunedRecipe) -> None:
    tuned.source.write_text('name = "r"  # short\n' + RECIPE, encoding="utf-8")
    assert tomllib.loads(tuned.text())["name"] == "r-tuned"


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "tuned.toml"
    refuse_to_overwrite(path, overwrite=False)
    path.touch()
    with pytest.raises(UsageError, match="is there already"):
        refuse_to_overwrite(path, overwrite=False)
    refuse_to_overwrite(path, overwrite=True)
    assert path.read_text() == ""
