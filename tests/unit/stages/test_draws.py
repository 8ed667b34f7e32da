"""What is tried next is a function of the seed, the number and what was found before."""

from pathlib import Path

import pytest

pytest.importorskip("optuna", reason="the extra `tune` is not installed")
from retrieval.stages.draws import draw
from retrieval.stages.search_space import Choice, Range, Search, SearchSettings

SPACE = {
    "model": Choice(values=[{"name": "mind"}, {"name": "comirec-sa"}]),
    "model.dimension": Range(low=8, high=512, log=True),
    "model.dropout": Range(low=0.0, high=0.5, step=0.1),
    "model.interests": Range(low=2, high=8, step=2),
    "train.optimizer.learning_rate": Range(low=1e-4, high=1e-1, log=True),
    "train.optimizer.weight_decay": Range(low=0.0, high=1.0),
}


def search_of(method: str, seed: int = 1) -> Search:
    return Search(SearchSettings(method=method, seed=seed), SPACE, Path("r.search.toml"))


def judged(settings: dict) -> float | None:
    """A planted optimum; small models fail."""
    return None if settings["model.dimension"] < 12 else -abs(settings["model.dropout"] - 0.3) - settings["train.optimizer.weight_decay"]


def searched(search: Search, trials: int) -> list[tuple[dict, float | None]]:
    found: list[tuple[dict, float | None]] = []
    for number in range(trials):
        settings = draw(search, number, 0, found)
        found.append((settings, judged(settings)))
    return found


@pytest.mark.parametrize("method", ["random", "tpe", "successive-halving"])
def test_values_lie_in_their_dimension(method: str) -> None:
    drawn = [settings for settings, _ in searched(search_of(method), 25)]
    assert {each["model"]["name"] for each in drawn} == {"mind", "comirec-sa"}
    assert {each["model.interests"] for each in drawn} == {2, 4, 6, 8}
    assert {each["model.dropout"] for each in drawn} == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5}
    assert all(isinstance(each["model.dimension"], int) and 8 <= each["model.dimension"] <= 512 for each in drawn)
    assert all(1e-4 <= each["train.optimizer.learning_rate"] <= 1e-1 for each in drawn)


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_a_trial_is_the_same_in_another_process(method: str) -> None:
    found = searched(search_of(method), 14)
    assert draw(search_of(method), 13, 0, found[:13]) == found[13][0]
    assert draw(search_of(method), 13, 1, found[:13]) != found[13][0]
    assert draw(search_of(method, seed=2), 13, 0, found[:13]) != found[13][0]


def test_only_tpe_looks_at_what_was_found() -> None:
    found = searched(search_of("random"), 14)
    other = [(settings, -(value or 0.0)) for settings, value in found]
    assert draw(search_of("random"), 14, 0, found) == draw(search_of("random"), 14, 0, other)
    assert draw(search_of("tpe"), 14, 0, found) != draw(search_of("tpe"), 14, 0, other)


def test_tpe_comes_nearer_to_a_planted_optimum_than_chance() -> None:
    best = {
        method: [value for seed in range(3) for _, value in searched(search_of(method, seed), 40)[20:] if value is not None]
        for method in ("tpe", "random")
    }
    assert sum(best["tpe"]) / len(best["tpe"]) > sum(best["random"]) / len(best["random"]) + 0.1
