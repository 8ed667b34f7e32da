"""From histories to interests: users of all lengths in one batch, each as if alone."""

from types import SimpleNamespace

import numpy as np
import pytest

from retrieval.models.settings import ComiRecSASettings, Gru4RecSettings, InterestTransformerSettings, MindSettings
from retrieval.models.table import build_model
from retrieval.stages import encode
from retrieval.stages.audience import Audience
from retrieval.stages.encode import EncodedHistories

ITEMS, USERS = 40, 23
SETTINGS = {
    "comirec-sa": ComiRecSASettings(dimension=8, history=7, interests=3),
    "mind": MindSettings(dimension=8, history=7, interests=3),
    "gru4rec": Gru4RecSettings(dimension=8, history=7),
    "interest-transformer": InterestTransformerSettings(dimension=8, history=7, interests=3, heads=1),
}


@pytest.fixture
def dataset() -> SimpleNamespace:
    """Histories of 0 to 22 events, long and short ones mixed."""
    random = np.random.default_rng(5)
    lengths = random.permutation(USERS)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items, times = random.integers(0, ITEMS, offsets[-1]).astype(np.int32), np.sort(random.integers(0, 10**6, offsets[-1]))
    return SimpleNamespace(sequences=SimpleNamespace(offsets=offsets, items=items, times=times, n_users=USERS))


def everyone(dataset: SimpleNamespace) -> Audience:
    return Audience(np.arange(USERS), np.diff(dataset.sequences.offsets), np.full(USERS, "test"))


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_a_user_among_others_is_as_alone(name: str, dataset: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "_USERS_AT_ONCE", 5)
    model = build_model(SETTINGS[name], ITEMS, 3).eval()
    users = EncodedHistories(model, dataset)
    (together,) = users.batches(everyone(dataset), 100)
    alone = list(users.batches(everyone(dataset), 1))
    np.testing.assert_array_equal(together.valid, np.concatenate([each.valid for each in alone]))
    there = together.valid
    np.testing.assert_allclose(together.vectors[there], np.concatenate([each.vectors for each in alone])[there], rtol=1e-4, atol=1e-5)
    assert not together.valid[np.diff(dataset.sequences.offsets) == 0].any()
    if together.routing is not None:
        assert together.routing.shape[2] == model.history
        np.testing.assert_allclose(together.routing[there], np.concatenate([each.routing for each in alone])[there], rtol=1e-4, atol=1e-5)
