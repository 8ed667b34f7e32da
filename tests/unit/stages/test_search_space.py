"""The search file: what may be searched, and what is said about the rest."""

from pathlib import Path

import pytest

from retrieval.core.errors import UsageError
from retrieval.stages.recipe import parse_recipe
from retrieval.stages.search_space import Choice, Range, Search, check_space, read_search, rung_stops

VALUES = {
    "data": {"name": "log", "interactions": {"path": "log.parquet"}},
    "model": {"name": "comirec-sa"},
    "train": {"steps": 900, "validate_every": 50},
}


def search_of(folder: Path, text: str) -> Search:
    path = folder / "r.search.toml"
    path.write_text(text, encoding="utf-8")
    return read_search(path)


def checked(folder: Path, space: str, values: dict | None = None, method: str = "random") -> Search:
    search = search_of(folder, f'[search]\nmethod = "{method}"\n[space]\n{space}\n')
    check_space(search, values or VALUES, "r.toml")
    return search


def test_paths_may_be_quoted_or_written_as_tables(tmp_path: Path) -> None:
    text = '[space]\n"model.dropout" = [0.0, 0.2]\ntrain.optimizer.learning_rate = { low = 1e-4, high = 1e-2, log = true }\n'
    found = search_of(tmp_path, text)
    assert found.space == {
        "model.dropout": Choice(values=[0.0, 0.2]),
        "train.optimizer.learning_rate": Range(low=1e-4, high=1e-2, log=True),
    }
    assert found.settings.keeps() == [20]


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ('"model.dropuot" = [0.1]', r"unknown setting 'model\.dropuot'; did you mean 'dropout'"),
        ('"modle.dropout" = [0.1]', "did you mean 'model'"),
        ('"model.dropout" = { low = 0.1, high = 1.5 }', r"model\.dropout' = 1\.5"),
        ('"model.dropout" = [0.1, -1.0]', r"model\.dropout' = -1\.0"),
        ('"model.name" = ["mind", "mindd"]', "mindd"),
        ('"model.name" = ["mind", "popular"]', "popular is counted, not trained"),
        ('"seed" = [1, 2]', "'seed' is not searched"),
        ('"recall.filter_seen" = [true, false]', "not searched"),
        ('"train.validation_users" = [10, 20]', "not searched"),
        ('"train" = [{ steps = 3 }]', "not searched"),
        ('"model.dropout.rate" = [0.1]', r"model\.dropout"),
    ],
)
def test_what_cannot_be_searched_is_said_before_the_first_trial(tmp_path: Path, space: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        checked(tmp_path, space)
    assert str(caught.value).startswith(str(tmp_path / "r.search.toml"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[space]\n", "names no setting"),
        ("[searhc]\n[space]\n", "unknown table 'searhc'"),
        ('[search]\nmethod = "grid"\n[space]\n"model.dropout" = [0.1]\n', "method"),
        ('[space]\n"model.dropout" = 0.1\n', "0.1 is one value"),
        ('[space]\n"model.dropout" = []\n', "at least 1 item"),
        ('[space]\n"model.dropout" = [0.1, 0.1]\n', "stands there twice"),
        ('[space]\n"model.dropout" = { low = 0.2, high = 0.1 }\n', "not below high"),
        ('[space]\n"model.dropout" = { low = 0.0, high = 0.1, log = true }\n', "low > 0"),
        ('[space]\n"model.interests" = { low = 1, high = 4, step = 9 }\n', "between 0 and high - low"),
        ('[space]\n"model.interests" = { low = 1, high = 4, stpe = 2 }\n', "did you mean 'step'"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        search_of(tmp_path, text)


def test_whole_models_may_be_choices(tmp_path: Path) -> None:
    found = checked(tmp_path, '"model" = [{ name = "mind", iterations = 2 }, { name = "youtube-dnn" }]')
    assert len(found.space["model"].values) == 2


def test_the_rungs_are_whole_validations_and_grow_by_the_reduction(tmp_path: Path) -> None:
    search = checked(tmp_path, '"model.dropout" = [0.1]', method="successive-halving")
    assert rung_stops(parse_recipe(VALUES, "r.toml"), search) == [100, 300, None]
    assert search.settings.keeps() == [20, 6, 2]
    short = parse_recipe({**VALUES, "train": {"steps": 60, "validate_every": 30}}, "r.toml")
    with pytest.raises(UsageError, match="do not make 3 rungs"):
        rung_stops(short, search)


@pytest.mark.parametrize("name", ["train.steps", "train.validate_every"])
def test_the_budget_of_halving_is_not_searched(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is the budget"):
        checked(tmp_path, f'"{name}" = [10, 20]', method="successive-halving")
    assert checked(tmp_path, f'"{name}" = [10, 20]').space[name] == Choice(values=[10, 20])


def test_ranges_count_whole_numbers_and_steps() -> None:
    assert [Range(low=2, high=8, step=3).at(count) for count in range(Range(low=2, high=8, step=3).steps + 1)] == [2, 5, 8]
    tenths = Range(low=0.1, high=0.55, step=0.1)
    assert [tenths.at(count) for count in range(tenths.steps + 1)] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert Range(low=1, high=4).steps == 3
    assert not Range(low=1, high=4.0).whole
