"""Recipes are read strictly, and a mistake is answered with the nearest right word."""

from pathlib import Path

import pytest
from pydantic import Field, model_validator

from retrieval.core.errors import UsageError
from retrieval.core.settings import Settings, canonical_json, fingerprint, parse_settings, read_toml, with_overrides


class Inner(Settings):
    steps: int = Field(5, ge=1)


class Outer(Settings):
    name: str
    inner: Inner = Inner()


def test_an_unknown_name_is_refused_with_a_suggestion() -> None:
    with pytest.raises(UsageError, match=r"unknown setting 'inner\.stepz'; did you mean 'steps'\?"):
        parse_settings(Outer, {"name": "x", "inner": {"stepz": 3}}, "recipe.toml")


@pytest.mark.parametrize(("values", "words"), [({"name": "x", "inner": {"steps": 0}}, "inner.steps' = 0"), ({}, "name")])
def test_a_broken_rule_names_path_value_and_rule(values: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        parse_settings(Outer, values, "recipe.toml")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


class Window(Settings):
    name: str = "w"
    first: int = 0
    last: int = 5

    @model_validator(mode="after")
    def _in_order(self) -> "Window":
        if self.first > self.last:
            raise ValueError("first comes after last")
        return self


def test_a_rule_over_several_settings_is_told_without_the_whole_table() -> None:
    with pytest.raises(UsageError) as caught:
        parse_settings(Window, {"first": 9}, "recipe.toml")
    assert str(caught.value) == "recipe.toml: first comes after last"


def test_a_word_that_is_right_elsewhere_is_not_suggested_for_itself() -> None:
    with pytest.raises(UsageError, match=r"unknown setting 'steps'; it belongs elsewhere"):
        parse_settings(Outer, {"name": "x", "steps": 3}, "recipe.toml")


def test_overrides_are_toml_values_and_otherwise_text() -> None:
    values = with_overrides({"a": {"b": 1}}, ["a.b=2.5", "a.c=true", "d=plain words", "e=[1, 2]", "f='3'"])
    assert values == {"a": {"b": 2.5, "c": True}, "d": "plain words", "e": [1, 2], "f": "3"}


@pytest.mark.parametrize("override", ["nothing", "=3", "a.b.c=1"])
def test_a_malformed_override_is_a_usage_error(override: str) -> None:
    with pytest.raises(UsageError):
        with_overrides({"a": {"b": 1}}, [override])


def test_overrides_leave_the_original_alone() -> None:
    original = {"a": {"b": 1}}
    with_overrides(original, ["a.b=2"])
    assert original == {"a": {"b": 1}}


def test_environment_variables_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_FOLDER", "/somewhere")
    monkeypatch.delenv("NOT_SET", raising=False)
    path = tmp_path / "recipe.toml"
    path.write_text('a = ["${SOME_FOLDER}/x", "${NOT_SET:-fallback}"]')
    assert read_toml(path) == {"a": ["/somewhere/x", "fallback"]}
    path.write_text('a = "${NOT_SET}"')
    with pytest.raises(UsageError, match="NOT_SET is not set; export NOT_SET="):
        read_toml(path)


@pytest.mark.parametrize("text", ["a = ", b"\xff\xfe".decode("latin-1"), "a = 1\na = 2"])
def test_what_is_no_toml_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError) as caught:
        read_toml(path)
    assert "\n" not in str(caught.value)


def test_fingerprints_depend_on_values_and_not_on_order() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert canonical_json({"b": 1, "a": "é"}) == '{"a":"\\u00e9","b":1}'
