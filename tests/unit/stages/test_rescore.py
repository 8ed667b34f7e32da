"""Re-scoring in the pipeline: off by default, never trained on test targets, exact after a restart."""

import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from retrieval.core.errors import UsageError
from retrieval.data.dataset import Dataset
from retrieval.data.sequences import SequenceDataset
from retrieval.data.splits import Split
from retrieval.evaluation.rescoring import RescoringGain
from retrieval.report.markdown import escape, render_markdown
from retrieval.report.report_page import report_page
from retrieval.stages import rescore
from retrieval.stages.audience import Audience, Scope
from retrieval.stages.build_index import load_vectors
from retrieval.stages.calibrate import validation_users
from retrieval.stages.evaluate import RESCORING
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recall import Server
from retrieval.stages.recipe import parse_recipe
from retrieval.stages.report import report_content
from retrieval.stages.rescore import PoolRescorer, Positions, _gain, positions, rescoring_run, standardised
from retrieval.stages.run import FinishedRun, headline, open_run
from retrieval.training.checkpoints import Checkpoints
from retrieval.training.loop import train
from retrieval.training.rescoring.recalled import RescoreExamples
from retrieval.training.rescoring.settings import RescoreSettings


def recipe(protocol: str = "comirec", **changes: object):
    values = {
        "generate": {"users": 200, "items": 120, "days": 20, "seed": 4, "catalog": {"categories": 4, "subcategories": 2}},
        "data": {
            "name": "generated",
            "interactions": {"path": "generated/interactions", "kind": ""},
            "items": {"path": "generated/items.parquet", "categories": "categories"},
        },
        "split": {"protocol": protocol, "valid_seconds": 3 * 86_400, "test_seconds": 3 * 86_400},
        "model": {"name": "comirec-sa", "dimension": 8, "interests": 2, "history": 12},
        "train": {"steps": 20, "validate_every": 20, "examples": {"batch_size": 16}, "loss": {"negatives": 32}},
        "recall": {"n": 20, "pool": 40},
        "rescore": {"name": "din", "examples": 300, "history": 10, "training": {"steps": 6, "validate_every": 3, "batch_size": 8}},
        "evaluate": {"resamples": 20, "cutoffs": [10, 20], "primary": "recall@20", "baselines": ["popular"]},
        "machine": {"threads": 1},
    }
    return parse_recipe({**values, **changes}, "rescore.toml")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rescore")


@pytest.fixture(scope="module")
def pipeline(workspace: Path) -> Pipeline:
    made = open_run(recipe(), workspace)
    _ = made.measurements
    return made


def test_it_is_off_by_default(pipeline: Pipeline, workspace: Path) -> None:
    plain = open_run(recipe(rescore={}), workspace)
    assert RescoreSettings().name == "none"
    assert "rescorer" in pipeline.candidates(Scope()).manifest.inputs
    assert "rescorer" not in plain.candidates(Scope()).manifest.inputs
    assert all(record.artifact.kind != "rescorer" for record in plain.stages.records)
    assert all(base.recipe.rescore.name == "none" for base in pipeline.baselines().values())


@pytest.mark.parametrize("name", ["din", "dien"])
def test_lists_hold_the_recalled_in_the_order_of_the_re_scorer(pipeline: Pipeline, workspace: Path, name: str) -> None:
    run = open_run(recipe(rescore={**pipeline.recipe.rescore.model_dump(), "name": name}), workspace)
    artifact = run.rescorer(run.index)
    assert artifact is not None
    assert artifact.summary["rescorer"] == name
    audience_pools = [pl.read_parquet(f"{each.candidates(Scope()).path}/pool-*.parquet") for each in (run, plain_of(workspace))]
    rescored, plain = (frame.sort("user_id", "item_id") for frame in audience_pools)
    assert rescored.select("user_id", "item_id").equals(plain.select("user_id", "item_id"))
    assert rescored["interest"].equals(plain["interest"])
    assert not rescored["score"].equals(plain["score"])
    ordered = audience_pools[0].with_columns(fall=pl.col("score").diff().over("user_id").fill_null(0.0))
    assert (ordered["fall"] <= 0).all()


def plain_of(workspace: Path) -> Pipeline:
    return open_run(recipe(rescore={}), workspace)


@pytest.mark.parametrize("where", ["training", "validation"])
@pytest.mark.parametrize("protocol", ["comirec", "leave-last-out", "global-time"])
def test_no_position_reaches_a_test_target(workspace: Path, protocol: str, where: str) -> None:
    dataset = open_run(recipe(protocol), workspace).dataset
    split, settings = dataset.split, RescoreSettings(name="din", positions=where, examples=500, horizon=5)
    watched, fitted = positions(dataset, settings, 1)
    for chosen in (watched, fitted):
        hidden = (split.test_end > split.test_start)[chosen.users]
        assert (chosen.until[hidden] <= split.test_start[chosen.users][hidden]).all()
        assert (chosen.visible >= 1).all()
        assert (chosen.visible < chosen.until).all()
    allowed = split.train_end if where == "training" else split.valid_end
    assert (fitted.until <= allowed[fitted.users]).all()
    if where == "validation":
        assert not set(fitted.users) & set(watched.users)
        assert (fitted.visible >= split.valid_start[fitted.users]).all()


@pytest.mark.parametrize("where", ["training", "validation"])
def test_other_test_targets_give_the_same_re_scorer_bit_for_bit(pipeline: Pipeline, tmp_path: Path, where: str) -> None:
    settings = pipeline.recipe.rescore.model_copy(update={"positions": where})
    weights = []
    for number, dataset in enumerate((pipeline.dataset, with_other_test_targets(pipeline.dataset))):
        serving = replace(
            pipeline._recalling(pipeline.index), dataset=dataset, recipe=pipeline.recipe.model_copy(update={"rescore": settings})
        )
        serving.users.dataset = dataset
        run, _ = rescoring_run(serving, Checkpoints(tmp_path / str(number)))
        train(run)
        weights.append(run.model.state_dict())
    pipeline.users.dataset = pipeline.dataset
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def with_other_test_targets(dataset: Dataset) -> Dataset:
    """The same where every test target is another item."""
    sequences, split = dataset.sequences, dataset.split
    items, offsets = np.array(sequences.items), sequences.offsets[:-1]
    for user in split.users("test"):
        hidden = slice(offsets[user] + split.test_start[user], offsets[user] + split.test_end[user])
        items[hidden] = (items[hidden] + 17) % dataset.catalog.n_items
    assert not np.array_equal(items, sequences.items)
    return replace(dataset, sequences=SequenceDataset(sequences.offsets, items, sequences.times, sequences.weights))


def test_training_that_was_stopped_goes_on_to_the_same_bits(pipeline: Pipeline, tmp_path: Path) -> None:
    serving = pipeline._recalling(pipeline.index)
    whole, _ = rescoring_run(serving, Checkpoints(tmp_path / "whole"))
    train(whole)
    for stop in (2, 4, None):
        part, _ = rescoring_run(serving, Checkpoints(tmp_path / "parts"))
        train(replace(part, stop_at_step=stop))
    expected, found = whole.model.state_dict(), part.model.state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    artifact = pipeline.rescorer(pipeline.index)
    assert artifact is not None
    order = PoolRescorer(artifact, pipeline.recipe, pipeline.vectors)
    assert all(torch.equal(order.model.state_dict()[name], expected[name]) for name in expected)


def test_strangers_keep_what_is_popular(pipeline: Pipeline) -> None:
    serving = pipeline.serving(pipeline.index)
    server = Server(serving, at_the_cut=True)
    audience = Audience(np.array([0, 1]), np.array([0, 5]), np.array(["test", "test"]), at_the_cut=True)
    [(encoded, pools)] = list(server.recalled(audience))
    assert serving.rescorer is not None
    changed = serving.rescorer(pools, encoded)
    assert np.array_equal(changed.rows[0], pools.rows[0])
    assert set(changed.rows[1]) == set(pools.rows[1])


def test_users_without_events_keep_the_order_that_their_fields_made(workspace: Path) -> None:
    model = {**recipe().model.model_dump(), "fields": {"users": ["activity"], "history_dropout": 0.1}}
    run = open_run(recipe(model=model), workspace)
    serving = run.serving(run.index)
    assert serving.rescorer is not None
    server = Server(serving, at_the_cut=True)
    for visible, changes in ((np.array([0, 0]), [False, False]), (np.array([0, 5]), [False, True])):
        [(encoded, pools)] = list(server.recalled(Audience(np.array([0, 1]), visible, np.array(["test", "test"]), at_the_cut=True)))
        assert encoded.valid.any(axis=1).all()
        changed = serving.rescorer(pools, encoded)
        on_one_scale = (changed.scores == standardised(pools.scores, pools.rows >= 0)).all(axis=1)
        kept = (changed.rows == pools.rows).all(axis=1) & on_one_scale
        assert kept.tolist() == [not each for each in changes]
        assert not np.array_equal(changed.scores[0], pools.scores[0])
        assert (np.diff(changed.scores, axis=1) <= 0).all()


def test_item_vectors_are_those_that_encoder_and_items_share(workspace: Path) -> None:
    model = {**recipe().model.model_dump(), "prior": {"hours": 24.0}}
    run = open_run(recipe(model=model, rescore={**recipe().rescore.model_dump(), "positions": "validation"}), workspace)
    assert load_vectors(run.vectors).shape[1] == 9
    built, _ = rescoring_run(run._recalling(run.index), Checkpoints(workspace / "unused"))
    assert torch.equal(built.model.items.embedding.weight, torch.from_numpy(np.array(load_vectors(run.vectors)[:, :8])))


def test_probabilities_are_fitted_on_users_whom_the_re_scorer_was_not(pipeline: Pipeline, workspace: Path) -> None:
    fitted = pipeline.recipe.rescore.model_dump()
    asked = {}
    for where in ("training", "validation"):
        changed = recipe(rescore={**fitted, "positions": where})
        asked[where] = set(validation_users(pipeline.dataset, changed).users)
        watched, trained = positions(pipeline.dataset, changed.rescore, changed.seed)
        if where == "validation":
            assert asked[where] == set(watched.users)
            assert not asked[where] & set(trained.users)
    assert asked["validation"] < asked["training"]


def test_a_re_scorer_moves_to_another_catalog_with_its_items(pipeline: Pipeline) -> None:
    artifact = pipeline.rescorer(pipeline.index)
    assert artifact is not None
    rows = np.arange(pipeline.dataset.catalog.n_items)[::-1].copy()
    rows[3] = -1
    own, moved = (PoolRescorer(artifact, pipeline.recipe, pipeline.vectors, each).model for each in (None, rows))
    table, expected = moved.items.embedding.weight, own.items.embedding.weight.flip(0).clone()
    expected[3] = torch.from_numpy(np.array(load_vectors(pipeline.vectors)[3]))
    assert torch.equal(table, expected), "an item that it does not know keeps the vector that is searched"
    assert torch.equal(moved.scale, own.scale)


def test_a_re_scorer_says_what_it_gains_over_recall(pipeline: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    summary = pipeline.rescorer(pipeline.index).summary
    at_best = summary["validation"]
    assert summary["gain"] == pytest.approx(at_best["recall@20"] - at_best["recall@20 of recall"], abs=1e-6)
    for own, warns in ((0.2, True), (0.1, True), (0.3, False)):
        found = _gain({"recall@20": own, "recall@20 of recall": 0.2}, 20)
        assert found == {"gain": pytest.approx(own - 0.2)}
        captured = capsys.readouterr()
        assert ("no better than the order of recall" in captured.out + captured.err) == warns
    assert _gain({}, 20) == {}


def test_evaluation_measures_the_gain_over_the_order_of_recall(pipeline: Pipeline, workspace: Path) -> None:
    found = RescoringGain.model_validate_json(pipeline.measurements.file(RESCORING).read_text())
    truth = (
        pl.read_parquet(pipeline.dataset_artifact.file("truth.parquet")).filter(pl.col("split") == "test").unique(["user_id", "item_id"])
    )
    wanted = truth.group_by("user_id").len("wanted")
    recalls = {}
    for kind in ("recalled", "pool"):
        ranks = pl.concat(map(pl.read_parquet, pipeline.candidates(Scope()).files(f"{kind}-"))).select("user_id", "item_id", "rank")
        hits = ranks.filter(pl.col("rank") <= 20).join(truth, on=["user_id", "item_id"]).group_by("user_id").len("hits")
        per_user = wanted.join(hits, on="user_id", how="left").select("user_id", pl.col("hits").fill_null(0) / pl.col("wanted"))
        recalls[kind] = per_user.sort("user_id")["hits"].to_numpy()
    assert found.recalled["recall@20"].mean == pytest.approx(recalls["recalled"].mean())
    assert found.rescored["recall@20"].mean == pytest.approx(recalls["pool"].mean())
    assert found.comparison.differences["recall@20"].mean == pytest.approx((recalls["pool"] - recalls["recalled"]).mean())
    plain = plain_of(workspace).measurements.summary["metrics"]["recall@20"]["mean"]
    assert found.recalled["recall@20"].mean == pytest.approx(plain), "lambda 0: lists are in the order of recall"
    assert found.cost is not None
    assert (found.cost.users, found.cost.recall > 0, found.cost.rescoring > 0) == (40, True, True)


def test_the_report_says_whether_re_scoring_earns_its_time(pipeline: Pipeline, workspace: Path) -> None:
    content = report_content(pipeline, pipeline.measurements, {})
    gain, summary = content.rescoring.gain, pipeline.rescorer(pipeline.index).summary
    assert gain is not None
    assert content.rescoring.watched_rescored == summary["validation"]["recall@20"]
    assert content.rescoring.watched_recalled == summary["validation"]["recall@20 of recall"]
    text = render_markdown(report_page(content))
    assert text.count(escape(gain.verdict())) == 2, "among the verdicts, and in its section"
    assert pipeline.measurements.summary["rescoring"] == gain.verdict()
    assert gain.verdict() in headline(FinishedRun(pipeline, pipeline.measurements, {}, pipeline.measurements))
    assert RESCORING not in plain_of(workspace).measurements.manifest.files


def test_shards_of_re_scored_lists_join_into_what_one_run_writes(workspace: Path) -> None:
    apart = open_run(recipe(recall={"n": 20, "pool": 40, "batch_users": 8}), workspace)
    for number in (1, 2):
        apart.candidates(Scope().of_shards(number, 2))
    joined = apart.joined(Scope(), 2)
    for kind in ("part", "pool", "recalled"):
        whole, found = (pl.concat(map(pl.read_parquet, each.files(f"{kind}-"))) for each in (apart.candidates(Scope()), joined))
        assert whole.equals(found)


def test_scores_are_standardised_over_what_is_there() -> None:
    found = standardised(np.array([[1.0, 3.0, -np.inf], [2.0, 2.0, 2.0]], np.float32), np.array([[True, True, False], [True, True, True]]))
    assert found.tolist() == [[-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("possible", [300, 301, 400, 3_000])
def test_as_many_positions_are_drawn_as_are_asked_for(possible: int) -> None:
    users = possible // 10 + 1
    ends = np.full(users, 11)
    ends[-1] = possible % 10 + 1
    split = Split(ends, ends, ends + 1, ends + 1, ends + 1)
    _, fitted = positions(SimpleNamespace(split=split), RescoreSettings(name="din", examples=300), 1)
    assert len(np.unique(fitted.users * 100 + fitted.visible)) == len(fitted.users) == 300


def test_memory_is_13_bytes_a_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    count, pool, items, size = 8_000, 100, 500, 100
    rng, chosen = np.random.default_rng(0), Positions(np.arange(count), np.full(count, 5), np.full(count, 6))
    sequences = SequenceDataset(np.arange(count + 1) * 6, rng.integers(0, items, count * 6).astype(np.int32), np.arange(count * 6))
    dataset = SimpleNamespace(sequences=sequences, catalog=SimpleNamespace(n_items=items), in_seconds=True)
    serving = SimpleNamespace(dataset=dataset, recipe=SimpleNamespace(split=SimpleNamespace(cuts_in_time=True)))
    server = SimpleNamespace(serving=serving, settings=SimpleNamespace(pool_size=pool))
    pools = ((rng.integers(0, items, (size, pool)), rng.random((size, pool), dtype=np.float32)) for _ in range(0, count, size))
    monkeypatch.setattr(rescore, "_pools_of", lambda *_: pools)
    tracemalloc.start()
    found = RescoreExamples(rescore.recalled_at(server, chosen, None), 8, 4, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 13 * count * pool * 1.25
    assert found.answerable.numel() > 100
    places = found.answerable[:50]
    answers = torch.from_numpy(sequences.items[chosen.users * 6 + 5].astype(np.int64))[places]
    assert torch.equal(found.recalled.rows[places] == answers[:, None], found.recalled.positive[places])
    whole = found.recalled.some(found.answerable).occurrences(torch.from_numpy(sequences.items), 3, items)
    assert torch.equal(found.occurrences(torch.from_numpy(sequences.items), 3, items), whole)


@pytest.mark.parametrize(
    ("name", "blocks", "said"),
    [
        ("din", {"hidden": [-5]}, "hidden"),
        ("din", {"hidden": [8, 0]}, "hidden"),
        ("din", {"auxiliary": 0.5}, "din has none"),
        ("dien", {"attention": 12}, "dien has none"),
    ],
)
def test_blocks_that_cannot_be_built_or_would_be_ignored_are_refused(name: str, blocks: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        recipe(rescore={"name": name, "blocks": blocks})


@pytest.mark.parametrize(("name", "blocks"), [("din", {"attention": 12, "hidden": []}), ("dien", {"auxiliary": 0.0, "hidden": [1]})])
def test_blocks_that_are_read_are_taken_and_read_again(name: str, blocks: dict[str, object]) -> None:
    taken = recipe(rescore={"name": name, "blocks": blocks}).rescore
    assert RescoreSettings.model_validate(taken.model_dump()) == taken


def test_a_prior_of_the_cut_does_not_go_with_positions_before_it() -> None:
    model = {**recipe().model.model_dump(), "prior": {"hours": 24.0}}
    with pytest.raises(UsageError, match=r"would recall by model\.prior, which is of the end of training.*use 'validation'"):
        recipe(model=model)
    assert recipe(model=model, rescore={}).rescore.name == "none"


def test_a_model_that_is_not_trained_here_cannot_be_re_scored() -> None:
    with pytest.raises(UsageError, match="needs a model that is trained here, not popular"):
        recipe(model={"name": "popular"})
