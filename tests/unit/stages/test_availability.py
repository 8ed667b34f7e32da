"""Positions of the past are recalled from what could have been given there."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from retrieval.stages.availability import Availability, has_clock
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recall import Server
from retrieval.stages.recipe import parse_recipe
from retrieval.stages.rescore import Positions, _say_how_many, positions, recalled_at, rescoring_run
from retrieval.stages.run import open_run
from retrieval.training.checkpoints import Checkpoints
from retrieval.training.rescoring.recalled import Recalled

START, DAY, DAYS, A_DAY = 1_600_000_000, 86_400, 12, 10


@pytest.fixture(scope="module")
def news(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every day ten new items, read on that day and the next."""
    folder, rng = tmp_path_factory.mktemp("news"), np.random.default_rng(0)
    day = np.repeat(np.arange(DAYS), 160)
    made = np.maximum(day - rng.integers(0, 2, len(day)), 0)
    log = {
        "user_id": np.tile(np.arange(80), 2 * DAYS),
        "item_id": made * A_DAY + rng.integers(0, A_DAY, len(day)),
        "timestamp": START + day * DAY + rng.integers(1, DAY, len(day)),
    }
    pl.DataFrame(log).write_parquet(folder / "log.parquet")
    items = np.arange(DAYS * A_DAY)
    pl.DataFrame({"item_id": items, "made": START + items // A_DAY * DAY}).write_parquet(folder / "items.parquet")
    return folder


def opened(folder: Path, where: dict[str, Any] | None = None, **changes: Any) -> Pipeline:
    values = {
        "name": "news",
        "data": {
            "name": "news",
            "interactions": {"path": str(folder / "log.parquet")},
            "items": {"path": str(folder / "items.parquet"), "fields": {"made": "time"}},
            "contract": {"duplicates": "drop"},
        },
        "split": {"protocol": "global-time"},
        "model": {"name": "comirec-sa", "dimension": 8, "interests": 2, "history": 12},
        "train": {"steps": 20, "validate_every": 20, "examples": {"batch_size": 32}, "loss": {"negatives": 32}},
        "recall": {"n": 10, "pool": 20, "filter": {"where": where or {}}},
        "rescore": {"name": "din", "examples": 400, "training": {"steps": 2, "validate_every": 2}},
        "evaluate": {"cutoffs": [10], "primary": "recall@10", "baselines": []},
        "machine": {"threads": 1},
    }
    return open_run(parse_recipe({**values, **changes}, "news.toml"), folder / "workspace")


def training_pools(run: Pipeline, folder: Path) -> tuple[Recalled, Positions]:
    """What a re-scorer of the run is trained on, with the positions in the same order."""
    serving = run._recalling(run.index)
    _, chosen = positions(run.dataset, run.recipe.rescore, run.recipe.seed)
    built, _ = rescoring_run(serving, Checkpoints(folder / "unused"))
    recalled = built.examples.recalled.some(built.examples.answerable)
    ends = torch.from_numpy(run.dataset.sequences.offsets[:-1][chosen.users] + chosen.visible)
    order = torch.argsort(ends)
    return recalled, chosen.some(order[torch.searchsorted(ends[order], recalled.end)].numpy())


@pytest.mark.parametrize("days", [None, 2.0])
def test_nothing_is_recalled_that_was_not_there_yet_or_not_let_through(news: Path, days: float | None) -> None:
    run = opened(news, {"made": {"within_days": days}} if days else {})
    recalled, chosen = training_pools(run, news)
    moments, rows = chosen.moments(run._recalling(run.index)), recalled.rows.numpy()
    met = run.dataset.sequences
    first = np.array([min(met.times[met.items == item], default=np.iinfo(np.int64).max) for item in range(DAYS * A_DAY)])
    made = run.dataset.catalog.frame["field_made"].to_numpy()
    there = rows >= 0
    assert (first[rows] < moments[:, None])[there].all()
    assert not days or (moments[:, None] - made[rows] <= days * DAY)[there].all()
    assert there.sum(axis=1).mean() > (8 if days else 15), "and pools are full nevertheless"
    assert (np.diff(there.astype(int), axis=1) <= 0).all()
    assert recalled.scores[torch.from_numpy(there)].std() > 0.5


def test_most_positions_teach_something_under_a_filter_of_days(news: Path) -> None:
    run = opened(news, {"made": {"within_days": 2.0}})
    _, about = rescoring_run(run._recalling(run.index), Checkpoints(news / "unused"))
    assert about["answerable"] / about["positions"] > 0.3


def test_available_is_what_a_loop_says(news: Path) -> None:
    run = opened(news, {"made": {"within_days": 3.0}})
    found, made = Availability.of(run.recipe, run.dataset, unmet=False), run.dataset.catalog.frame["field_made"].to_list()
    sequences, split = run.dataset.sequences, run.dataset.split
    first: dict[int, int] = {}
    for user in range(sequences.n_users):
        for place in range(sequences.offsets[user], sequences.offsets[user] + split.train_end[user]):
            item = int(sequences.items[place])
            first[item] = min(first.get(item, sequences.times[place]), sequences.times[place])
    moments = np.array([START, START + DAY // 2, START + 4 * DAY, START + 9 * DAY + 5])
    expected = [
        [item in first and first[item] < then and made[item] <= then <= made[item] + 3 * DAY for item in range(len(made))]
        for then in moments
    ]
    rows = np.tile(np.arange(len(made)), (len(moments), 1))
    assert found.holds(rows, moments).tolist() == expected
    assert not found.holds(np.full((1, 2), -1), moments[:1]).any()
    assert [found.between(then, then).tolist() for then in moments] == expected
    assert (found.between(moments[0], moments[2]) >= np.array(expected[:3]).any(axis=0)).all()


def test_what_training_has_not_met_is_there_only_behind_the_cut(news: Path) -> None:
    run = opened(news, split={"protocol": "global-time", "cold_items": True})
    cold, late = run.dataset.catalog.events == 0, START + (DAYS + 1) * DAY
    assert cold.any()
    for unmet in (True, False):
        available = Availability.of(run.recipe, run.dataset, unmet=unmet)
        assert (available.between(late, late)[cold] == unmet).all()
        assert available.between(late, late)[~cold].all()


def test_pieces_are_whole_and_few_items_come_or_go_in_one(news: Path) -> None:
    run = opened(news)
    found = Availability.of(run.recipe, run.dataset, unmet=False)
    moments = np.sort(np.random.default_rng(1).integers(START, START + DAYS * DAY, 300))
    pieces = list(found.pieces(moments))
    assert np.array_equal(np.concatenate([np.arange(300)[each] for each in pieces]), np.arange(300))
    assert len(pieces) > 5
    for each in pieces:
        then = moments[each]
        some, all_along = found.between(then[0], then[-1]), found.holds(np.tile(np.arange(DAYS * A_DAY), (len(then), 1)), then).all(axis=0)
        assert len(then) >= 1
        assert len(then) == 1 or all_along.sum() >= 0.9 * some.sum()


def test_an_order_of_each_users_own_says_nothing_about_what_was_there(news: Path) -> None:
    run = opened(news, split={"protocol": "comirec"})
    ordered = replace(run.dataset, in_seconds=False)
    assert has_clock(run.recipe, run.dataset)
    assert not has_clock(run.recipe, ordered)
    assert has_clock(opened(news).recipe, ordered), "a cut by the order is the same for everybody"
    available = Availability.of(run.recipe, ordered, unmet=False)
    assert list(available.pieces(np.zeros(100, np.int64))) == [slice(0, 100)]
    assert available.between(0, 0).all()
    serving = replace(run._recalling(run.index), dataset=ordered)
    _, chosen = positions(ordered, run.recipe.rescore, 1)
    found = recalled_at(Server(serving, at_the_cut=True), chosen, available)
    assert not chosen.moments(serving).any()
    assert torch.equal(found.end, torch.from_numpy(ordered.sequences.offsets[:-1][chosen.users] + chosen.visible)), "in their own order"
    assert (found.rows.numpy() >= 0).all()


@pytest.mark.parametrize(("share", "warns"), [(0.04, True), (0.06, False)])
def test_few_positions_that_teach_something_are_said_aloud(share: float, warns: bool, capsys: pytest.CaptureFixture[str]) -> None:
    _say_how_many(positions=1_000, answerable=round(1_000 * share), watched=5)
    captured = capsys.readouterr()
    assert ("recall finds what came true at few positions" in captured.out + captured.err) == warns
