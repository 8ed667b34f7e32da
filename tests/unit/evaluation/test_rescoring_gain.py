"""Two orders of the same candidates: what the second gains, and in words whether it earns its time."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from retrieval.evaluation.comparison import Comparison, Difference
from retrieval.evaluation.rescoring import RescoringCost, RescoringGain, rescoring_gain
from retrieval.evaluation.settings import EvaluationSettings
from retrieval.evaluation.truth import ground_truth

USERS, POOL = 60, 30
SETTINGS = EvaluationSettings(cutoffs=(5, 10), primary="recall@5", resamples=200)


def written(folder: Path, name: str, target_ranks: np.ndarray) -> Path:
    """Pools of items 0 to 29; the user's own item, user % 30, stands at the given rank."""
    users = np.repeat(np.arange(USERS), POOL)
    own = users % POOL
    items = np.tile(np.arange(POOL), USERS)
    key = np.where(items == own, np.repeat(target_ranks, POOL) - 0.5, items + (items < own))
    frame = pl.DataFrame({"user_id": users, "item_id": items, "key": key}).sort("user_id", "key")
    ranked = frame.select("user_id", "item_id", rank=pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("user_id"))
    ranked.write_parquet(folder / f"{name}.parquet")
    return folder / f"{name}.parquet"


@pytest.fixture
def gain(tmp_path: Path) -> RescoringGain:
    """Recall finds the item of every third user within five, the re-scorer that of two in three."""
    truth = ground_truth(pl.DataFrame({"user_id": np.arange(USERS), "item_id": np.arange(USERS) % POOL}))
    recalled = written(tmp_path, "recalled", np.where(np.arange(USERS) % 3 == 0, 2, 25))
    rescored = written(tmp_path, "pool", np.where(np.arange(USERS) % 3 < 2, 1, 25))
    return rescoring_gain([rescored], [recalled], truth, None, SETTINGS)


def test_a_planted_gain_is_found_and_earns_its_time(gain: RescoringGain) -> None:
    assert gain.recalled["recall@5"].mean == pytest.approx(1 / 3)
    assert gain.rescored["recall@5"].mean == pytest.approx(2 / 3)
    assert gain.comparison.differences["recall@5"].mean == pytest.approx(1 / 3)
    assert "recall@20" in gain.rescored, "at 20, whatever else is measured"
    assert gain.earned
    timed = gain.model_copy(update={"cost": RescoringCost(users=9, recall=0.2, rescoring=4.8)})
    said = timed.verdict()
    assert said.startswith("Re-scoring earns its time: it moves recall@5 of the same candidates by +0.3333 (+0.")
    assert said.endswith("for 4.80 ms of processor time a user, beside 0.20 ms of recall.")


@pytest.mark.parametrize(("low", "high"), [(-0.01, 0.02), (-0.03, -0.01), (0.0, 0.0)])
def test_what_is_no_sure_gain_does_not(low: float, high: float) -> None:
    difference = Difference(mean=(low + high) / 2, low=low, high=high)
    found = RescoringGain(primary="recall@5", comparison=Comparison(users=9, differences={"recall@5": difference}))
    assert not found.earned
    assert found.verdict().startswith("Re-scoring does not earn its time: it moves recall@5")
    assert "rescore.name = 'none'" in found.verdict()


def test_without_a_value_nothing_is_claimed() -> None:
    found = RescoringGain(primary="recall@5", comparison=Comparison(users=0, differences={"recall@5": Difference(mean=None)}))
    assert not found.earned
    assert "is not known" in found.verdict()
