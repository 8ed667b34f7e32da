"""Where the rows of the item table lie: all here, or a share of them."""

import pytest
import torch
from torch import nn

from retrieval.models import item_tower
from retrieval.models.item_tower import FetchedRows, ItemTower
from retrieval.models.settings import ComiRecSASettings
from retrieval.models.table import build_model


def drawn_at_once(n_items: int, dimension: int) -> tuple[torch.Tensor, torch.Tensor]:
    """As torch draws an embedding and then normal numbers into it; and what the generator gives next."""
    torch.manual_seed(3)
    embedding = nn.Embedding(n_items, dimension)
    nn.init.normal_(embedding.weight, std=dimension**-0.5)
    return embedding.weight.detach(), torch.rand(3)


@pytest.mark.parametrize(("n_items", "dimension"), [(103, 17), (40, 16), (5, 3), (1, 3), (65, 1), (79, 1), (80, 1), (81, 1), (300, 64)])
def test_weights_drawn_in_blocks_are_those_of_one_draw(n_items: int, dimension: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_tower, "_DRAWN", 64)
    expected, following = drawn_at_once(n_items, dimension)
    middle = slice(n_items // 3, n_items - n_items // 4)
    for held in (None, slice(0, n_items), middle, slice(n_items, n_items)):
        torch.manual_seed(3)
        tower = ItemTower(n_items, dimension, held)
        assert torch.equal(tower.held_items(), expected[tower.held])
        assert torch.equal(torch.rand(3), following), "what is drawn next is something else"
        assert (tower.n_items, tower.sharded) == (n_items, held is not None)


def test_a_part_of_a_model_has_the_weights_of_the_whole() -> None:
    settings = ComiRecSASettings(dimension=8, history=5, interests=2)
    whole, part = build_model(settings, 30, 7).state_dict(), build_model(settings, 30, 7, slice(10, 19)).state_dict()
    assert torch.equal(part.pop("items.embedding.weight"), whole.pop("items.embedding.weight")[10:19])
    assert all(torch.equal(value, part[name]) for name, value in whole.items())


def test_a_sharded_tower_reads_what_was_fetched_and_nothing_else() -> None:
    whole, tower = ItemTower(30, 4), ItemTower(30, 4, slice(10, 20))
    rows = torch.tensor([2, 11, 25])
    tower.fetched = FetchedRows(rows, whole(rows).detach())
    asked = torch.tensor([[25, 2], [11, 25]])
    assert torch.equal(tower(asked), whole(asked))
    lookups = tower.read_row_wise()
    tower(asked).sum().backward()
    assert lookups.gradients(tower.embedding.weight).rows.tolist() == [2, 11, 25]
    for missing in (12, 0, 29):
        with pytest.raises(LookupError, match="not fetched for this step"):
            tower(torch.tensor([11, missing]))
    tower.fetched = None
    with pytest.raises(LookupError, match="no row of it was fetched"):
        tower(asked)
    with pytest.raises(LookupError, match="rows 10 to 20 of 30 lie here"):
        tower.all_items()


def test_of_nothing_fetched_nothing_can_be_read() -> None:
    nothing = FetchedRows(torch.empty(0, dtype=torch.int64), torch.empty(0, 4))
    assert nothing.places(torch.empty(2, 0, dtype=torch.int64)).shape == (2, 0)
    with pytest.raises(LookupError):
        nothing.places(torch.tensor([3]))
