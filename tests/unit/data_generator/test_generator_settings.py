"""Settings of the generator: what is refused, and with which advice."""

import subprocess
import sys

import pytest

from retrieval.core.errors import UsageError
from retrieval.core.settings import parse_settings
from retrieval.data.generator.settings import GeneratorSettings


@pytest.mark.parametrize(
    "values",
    [
        {"users": 0},
        {"users": -3},
        {"items": 0},
        {"days": 0},
        {"seed": -1},
        {"new_users": 1.5},
        {"behaviour": {"interests": 0}},
        {"behaviour": {"events_per_user": 0}},
        {"behaviour": {"events_per_user": 1e6}},
        {"behaviour": {"interests": 3, "interests_spread": 3}},
        {"behaviour": {"noise": -0.1}},
        {"behaviour": {"burst": 0.5}},
        {"catalog": {"categories": 0}},
        {"catalog": {"new_items": 2}},
        {"items": 100, "catalog": {"categories": 11, "subcategories": 10}},
        {"catalog": {"categories": 1, "subcategories": 3}},
        {"catalog": {"categories": 1, "subcategories": 6}},
    ],
)
def test_a_bad_value_is_a_usage_error_with_a_remedy(values):
    with pytest.raises(UsageError) as caught:
        GeneratorSettings(**values)
    assert caught.value.remedy
    assert caught.value.expected


def test_more_interests_than_topics_names_both():
    with pytest.raises(UsageError, match="4 interests a user on 3 topics"):
        GeneratorSettings(catalog={"categories": 1, "subcategories": 3}, behaviour={"drift": 0.0})


def test_without_drift_there_may_be_as_many_interests_as_topics():
    settings = GeneratorSettings(catalog={"categories": 1, "subcategories": 4}, behaviour={"drift": 0.0})
    assert settings.catalog.topics == settings.behaviour.most_interests


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'noise'"):
        parse_settings(GeneratorSettings, {"behaviour": {"niose": 0.1}}, "recipe.toml")


def test_importing_the_settings_needs_neither_numpy_nor_torch():
    code = "import sys, retrieval.data.generator.settings; sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'polars')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
