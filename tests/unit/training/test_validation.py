"""Validation recall against a loop."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from retrieval.models.histories import gather_histories
from retrieval.models.interests import Interests
from retrieval.models.settings import MindSettings
from retrieval.models.table import build_model
from retrieval.training.health import effective_rank, observe, pairwise_cosine, summarise_health, winning
from retrieval.training.held_out import HeldOut, ValidationSettings
from retrieval.training.ranking import max_scores
from retrieval.training.validation import validate

ITEMS, USERS, EACH = 40, 9, 12


def held_out() -> tuple[HeldOut, list[set[int]]]:
    generator = torch.Generator().manual_seed(4)
    items = torch.randint(ITEMS, (USERS * EACH,), generator=generator, dtype=torch.int32)
    start = torch.arange(USERS) * EACH
    cut = start + 8
    targets = [set(items[int(c) : int(s) + EACH].tolist()) for s, c in zip(start, cut, strict=True)]
    keys = torch.tensor(sorted(user * ITEMS + item for user, found in enumerate(targets) for item in found))
    counts = torch.tensor([len(found) for found in targets])
    return HeldOut(items, torch.arange(len(items)), start, cut, keys, counts), targets


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("filter_seen", [False, True])
def test_recall_is_the_naive_recall(filter_seen: bool, blocks: bool) -> None:
    model = build_model(MindSettings(dimension=6, history=5, interests=3), ITEMS, 2)
    users, targets = held_out()
    blocked = torch.arange(ITEMS) % 3 == 0
    users = replace(users, blocked=blocked) if blocks else users
    found = validate(model, users, ValidationSettings(n=7, filter_seen=filter_seen, batch_users=4))
    recalls = []
    for user in range(USERS):
        history = gather_histories(users.items, users.times, users.start[user : user + 1], users.cut[user : user + 1], 5)
        interests = model.interests(history)
        vectors = interests.vectors[0][interests.valid[0]]
        scores = (vectors @ model.all_items().T).amax(dim=0)
        if filter_seen:
            scores[users.items[users.start[user] : users.cut[user]].long()] = -torch.inf
        scores[blocked & blocks] = -torch.inf
        top = set(scores.topk(7).indices.tolist())
        recalls.append(len(top & targets[user]) / len(targets[user]))
    assert found["recall@7"] == pytest.approx(sum(recalls) / USERS)


def test_a_large_catalog_is_scored_for_fewer_users_at_a_time() -> None:
    model = build_model(MindSettings(dimension=6, history=5, interests=3), ITEMS, 2)
    users, _ = held_out()
    asked: list[int] = []
    interests = model.interests
    model.interests = lambda histories: (asked.append(len(histories.items)), interests(histories))[1]
    few = validate(model, users, ValidationSettings(n=7, scores=2 * ITEMS))
    assert asked == [2, 2, 2, 2, 1]
    asked.clear()
    assert validate(model, users, ValidationSettings(n=7)) == pytest.approx(few)
    assert asked == [USERS]


def test_an_invalid_interest_never_scores() -> None:
    model = build_model(MindSettings(dimension=6, history=5, interests=3), ITEMS, 2)
    users, _ = held_out()
    interests = model.interests(gather_histories(users.items, users.times, users.start[:1], users.start[:1] + 1, 5))
    assert interests.valid.tolist() == [[True, False, False]]
    torch.testing.assert_close(max_scores(interests, model.all_items())[0], interests.vectors[0, 0] @ model.all_items().T)
    assert pairwise_cosine(interests)[1].tolist() == [0.0]


def test_health_of_two_equal_and_two_opposite_interests() -> None:
    east, north = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    interests = Interests(
        torch.stack([torch.stack([east, east, north]), torch.stack([east, north, -east])]), torch.ones(2, 3, dtype=torch.bool)
    )
    items = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]])
    health = summarise_health(observe(interests, winning(interests, items[torch.tensor([[0, 1], [1, 2]])])))
    assert health["interest_cosine"] == pytest.approx((1 / 3 - 1 / 3) / 2, abs=1e-6)
    assert health["contributing_interests"] == pytest.approx(2.0)
    # Items won: by interest 0 one (the first of equals), by interest 1 one, by interest 2 two.
    assert health["largest_share"] == pytest.approx(0.5)
    assert health["dead_interests"] == 0.0
    shares = [2 / 3, 1 / 3]
    assert float(effective_rank(interests)[0]) == pytest.approx(float(np.exp(-sum(s * np.log(s) for s in shares))), rel=1e-5)
