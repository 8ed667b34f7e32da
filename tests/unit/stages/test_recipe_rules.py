"""Rules over several tables of a recipe."""

import pytest

from retrieval.core.errors import UsageError
from retrieval.stages.recipe import baseline_recipes, parse_recipe


def values(model: dict, **examples: object) -> dict:
    return {
        "data": {"name": "log", "interactions": {"path": "log.parquet"}},
        "model": model,
        "train": {"examples": {"name": "session-parallel", **examples}},
        "recall": {"n": 50},
    }


def test_sessions_in_slots_need_an_encoder_with_a_state() -> None:
    with pytest.raises(UsageError, match="needs an encoder with a state: gru4rec, not comirec-sa"):
        parse_recipe(values({"name": "comirec-sa"}), "a.toml")
    assert parse_recipe(values({"name": "gru4rec"}), "a.toml").train.examples.unroll >= 1


def test_a_baseline_without_a_state_is_trained_on_windows_with_as_many_targets_a_step() -> None:
    recipe = parse_recipe(values({"name": "gru4rec", "history": 25}, batch_size=100, unroll=5), "a.toml")
    baselines = baseline_recipes(recipe)
    assert baselines["youtube-dnn"].train.examples.name == "prefixes"
    assert baselines["youtube-dnn"].train.examples.batch_size == 20
    assert baselines["popular"].train == recipe.train
    assert "k1" not in baselines


def test_a_recipe_s_lists_are_merged_already() -> None:
    with pytest.raises(UsageError, match="'per-interest' is for lists made elsewhere"):
        parse_recipe({**values({"name": "gru4rec"}), "evaluate": {"lists": "per-interest"}}, "a.toml")
