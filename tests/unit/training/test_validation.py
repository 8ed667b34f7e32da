"""Validation recall against a loop."""

import pytest
import torch

from retrieval.models.histories import gather_histories
from retrieval.models.settings import MindSettings
from retrieval.models.table import build_model
from retrieval.training.validation import HeldOut, ValidationSettings, max_scores, pairwise_cosine, validate

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


@pytest.mark.parametrize("filter_seen", [False, True])
def test_recall_is_the_naive_recall(filter_seen: bool) -> None:
    model = build_model(MindSettings(dimension=6, history=5, interests=3), ITEMS, 2)
    users, targets = held_out()
    found = validate(model, users, ValidationSettings(n=7, filter_seen=filter_seen, batch_users=4))
    recalls = []
    for user in range(USERS):
        history = gather_histories(users.items, users.times, users.start[user : user + 1], users.cut[user : user + 1], 5)
        interests = model.interests(history)
        vectors = interests.vectors[0][interests.valid[0]]
        scores = (vectors @ model.all_items().T).amax(dim=0)
        if filter_seen:
            scores[users.items[users.start[user] : users.cut[user]].long()] = -torch.inf
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
