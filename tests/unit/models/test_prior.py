"""Fresh popularity as a prior: exact for a model that knows the old popularity and nothing else."""

import numpy as np
import polars as pl
import pytest
import torch

from retrieval.data.fields.coding import code_column
from retrieval.data.fields.settings import CategoricalField
from retrieval.models.fields.inputs import FieldInputs
from retrieval.models.fields.settings import FieldsSettings
from retrieval.models.histories import gather_histories
from retrieval.models.interests import Interests
from retrieval.models.settings import ComiRecSASettings, InterestTransformerSettings, PriorSettings, YouTubeDNNSettings
from retrieval.models.table import build_model

COUNTS, FRESH = torch.tensor([50, 30, 20, 0]), torch.tensor([0, 10, 30, 0])


def scores(model, histories) -> torch.Tensor:
    interests: Interests = model.interests(histories)
    return (interests.vectors @ model.all_items().T).amax(dim=1)


@pytest.fixture
def histories():
    return gather_histories(torch.tensor([0, 1, 2]), torch.arange(3), torch.tensor([0]), torch.tensor([3]), 5)


@pytest.mark.parametrize("settings", [YouTubeDNNSettings, ComiRecSASettings, InterestTransformerSettings])
def test_serving_scores_move_by_the_difference_of_the_log_shares(settings, histories) -> None:
    prior = PriorSettings(hours=1, smoothing=0.5, weight=0.7)
    model = build_model(settings(dimension=8, history=5, temperature=0.2, prior=prior), 4, 1).eval()
    before = scores(model, histories)
    model.fit_prior(COUNTS, FRESH)
    fresh, old = ((FRESH + 0.5) / (FRESH + 0.5).sum()).log(), ((COUNTS + 0.5) / (COUNTS + 0.5).sum()).log()
    torch.testing.assert_close(scores(model, histories) - before, 0.2 * (0.7 * fresh - old)[None], rtol=1e-4, atol=1e-5)


def test_a_model_of_the_old_popularity_becomes_one_of_the_fresh(histories) -> None:
    model = build_model(YouTubeDNNSettings(dimension=1, history=5, prior=PriorSettings(hours=1)), 4, 1).eval()
    with torch.no_grad():
        model.items.embedding.weight.copy_(((COUNTS + 1) / (COUNTS + 1).sum()).log()[:, None])
        model.encoder.layers[0].weight.zero_()
        model.encoder.layers[0].bias.fill_(1.0)
    model.fit_prior(COUNTS, FRESH)
    torch.testing.assert_close(torch.softmax(scores(model, histories), dim=1)[0], (FRESH + 1) / (FRESH + 1).sum())


def test_training_and_models_without_a_prior_know_nothing_of_it(histories) -> None:
    settings = ComiRecSASettings(dimension=8, history=5, prior=PriorSettings(hours=1))
    model = build_model(settings, 4, 1).train()
    assert model.all_items().shape == (4, 8)
    assert model.interests(histories).vectors.shape[2] == 8
    without = build_model(settings.model_copy(update={"prior": PriorSettings()}), 4, 1).eval()
    without.fit_prior(COUNTS, FRESH)
    assert without.all_items().shape == (4, 8)
    assert "prior" not in without.state_dict()


@pytest.mark.parametrize(("unseen", "place"), [(0.0, 0), (0.4, 1), (0.5, 1), (1.0, 2)])
def test_with_fields_an_item_that_training_has_not_met_stands_among_the_fresh(unseen: float, place: int) -> None:
    group = code_column("group", CategoricalField(), pl.Series(["a", "b", "a", "b"]), np.ones(4, dtype=np.int64))
    fields = FieldsSettings(items=("group",))
    settings = YouTubeDNNSettings(dimension=2, history=5, prior=PriorSettings(hours=1, unseen=unseen), fields=fields)
    model = build_model(settings, 4, 1, fields=FieldInputs(items=[group], trained=COUNTS.numpy() > 0)).eval()
    model.fit_prior(COUNTS, torch.tensor([1, 10, 30, 0]))
    assert model.prior[3] == model.prior[:3].sort().values[place]
