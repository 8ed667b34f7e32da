"""What the first of several processes says to the others, and what they make of it."""

import json
from pathlib import Path

import pytest
import torch

from retrieval.core.errors import QualityGateError
from retrieval.core.ranks import Place, own_place
from retrieval.stages import crew as crews
from retrieval.stages.crew import Crew
from retrieval.stages.recipe import Recipe, read_recipe
from retrieval.stages.train import Beginning
from retrieval.training.distributed import World

ROOT = Path(__file__).parents[3]
RECIPES = sorted(path for path in (ROOT / "pipelines").rglob("*.toml") if not path.name.endswith(".search.toml"))


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> tuple[Crew, Crew]:
    """A leader and another; their group is not formed and their dataset is its path."""
    store = torch.distributed.HashStore()
    monkeypatch.setattr(Crew, "_joined", lambda self, recipe: World(self.place.rank, self.place.size))
    monkeypatch.setattr(crews, "open_artifact", lambda path: path)
    monkeypatch.setattr(crews.Dataset, "open", staticmethod(lambda path: path))
    return Crew(Place(0, 2), store), Crew(Place(1, 2), store)


def test_the_others_train_what_the_leader_trains_until_it_ends(
    two: tuple[Crew, Crew], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    leader, other = two
    recipe = read_recipe(ROOT / "pipelines/sample.toml", ["machine.threads=1", "machine.device=cpu"])
    seen = []

    def along(beginning: Beginning, stop: int | None) -> None:
        seen.append((beginning.recipe, beginning.dataset, beginning.start, beginning.gather(stop), stop))
        if len(seen) == 1:
            raise QualityGateError("the loss is nan at step 3")

    monkeypatch.setattr(crews.train, "train_along", along)
    before = torch.get_num_threads()
    assert leader.lead(recipe, tmp_path, None, 7) == World(0, 2)
    leader.lead(recipe, tmp_path, tmp_path / "start", None)
    leader.end(5)
    assert other.follow() == 5
    torch.set_num_threads(before)
    assert seen == [(recipe, tmp_path, None, World(1, 2), 7), (recipe, tmp_path, tmp_path / "start", World(1, 2), None)]
    leader.end(0)  # comes back, because the other one left word


def test_an_error_is_an_echo_only_where_the_leader_is_ending(two: tuple[Crew, Crew], monkeypatch: pytest.MonkeyPatch) -> None:
    leader, other = two
    monkeypatch.setattr(crews, "_A_MOMENT", crews.dt.timedelta(milliseconds=50))
    assert other.ended() is None
    leader.end(6)
    assert other.ended() == 6


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_arrives_as_it_was_sent(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRIEVAL_DATA", "data")
    recipe = read_recipe(path)
    assert Recipe.model_validate(json.loads(json.dumps(recipe.model_dump(mode="json", by_alias=True)))) == recipe


def test_a_process_is_alone_unless_a_launcher_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert own_place() == Place()
    monkeypatch.setenv("RANK", "3")  # some schedulers set this one for purposes of their own
    assert own_place() == Place()
    for name, value in {"WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert own_place() == Place(3, 4, 1, 2)
    assert own_place().follows
