"""Fields from tables to lists: what has no event is found by what it is."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from retrieval.core.errors import UsageError
from retrieval.core.settings import with_values
from retrieval.evaluation.measurements import Measurements
from retrieval.report.sections import sections
from retrieval.stages.audience import Scope
from retrieval.stages.gates import gates_of, mean_gates
from retrieval.stages.inspect import describe
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recipe import parse_recipe
from retrieval.stages.report import report_content
from retrieval.stages.run import open_run
from retrieval.stages.train import Beginning, _take_best, _watched
from retrieval.stages.warm_start import other_settings
from retrieval.training.distributed import World
from retrieval.training.tensor_files import TensorFile

GROUPS, ITEMS, USERS = 4, 40, 60
NEW = 1000


def write_tables(folder: Path) -> None:
    """Users of one group each who like its items; a new item in every group; a new user for every taste."""
    random = np.random.default_rng(4)
    taste = np.arange(USERS) % GROUPS
    items = random.integers(ITEMS // GROUPS, size=(USERS, 12)) * GROUPS + taste[:, None]
    log = {"user_id": np.repeat(np.arange(USERS), 12), "item_id": items.ravel(), "timestamp": np.tile(np.arange(12), USERS)}
    pl.DataFrame(log).with_columns(device=pl.Series(["tv", "web"]).gather(items.ravel() % 2)).write_parquet(folder / "log.parquet")
    ids = [*range(ITEMS), *range(NEW, NEW + GROUPS)]
    groups = pl.DataFrame({"item_id": ids, "group": [f"g{number % GROUPS}" for number in ids], "price": [float(number) for number in ids]})
    groups.write_parquet(folder / "items.parquet")
    tastes = [f"t{number % GROUPS}" for number in range(USERS)] + [f"t{number}" for number in range(GROUPS)]
    pl.DataFrame({"user_id": [*range(USERS), *range(NEW, NEW + GROUPS)], "taste": tastes}).write_parquet(folder / "users.parquet")


def pipeline_on(folder: Path, fields: dict[str, Any], **changes: Any) -> Pipeline:
    folder.mkdir(exist_ok=True)
    write_tables(folder)
    log = {"path": str(folder / "log.parquet"), "time_unit": "order", "fields": {"device": "categorical"}}
    values = {
        "name": "fields",
        "data": {
            "name": "log",
            "interactions": log,
            "items": {
                "path": str(folder / "items.parquet"),
                "fields": {"group": "categorical", "price": {"kind": "numeric", "buckets": 2}},
            },
            "users": {"path": str(folder / "users.parquet"), "fields": {"taste": "categorical"}},
            "keep_items_without_events": True,
        },
        "split": {"protocol": "leave-last-out"},
        "model": {"name": "comirec-sa", "dimension": 16, "interests": 2, "history": 10, "fields": fields},
        "train": {
            "steps": 60,
            "validate_every": 60,
            "examples": {"batch_size": 16},
            "loss": {"negatives": 32},
            "optimizer": {"learning_rate": 0.03},
        },
        "recall": {"n": 11, "filter_seen": False, "pool": 20},
        "evaluate": {"cutoffs": [5, 10], "primary": "recall@10"},
        "machine": {"threads": 1, "device": "cpu"},
    }
    return open_run(parse_recipe(with_values(values, changes, "test"), "fields.toml"), folder / "workspace")


def test_an_item_without_an_event_is_given_to_those_who_like_what_is_like_it(tmp_path: Path) -> None:
    pipeline = pipeline_on(tmp_path, {"items": ["group"], "id_dropout": 0.3})
    lists = pl.read_parquet(pipeline.candidates(Scope(who="all")).files("part-"))
    own = lists.filter(pl.col("item_id") == NEW + pl.col("user_id") % GROUPS)
    others = lists.filter((pl.col("item_id") >= NEW) & (pl.col("item_id") != NEW + pl.col("user_id") % GROUPS))
    assert own["user_id"].n_unique() > 0.9 * USERS
    assert len(others) < 0.1 * USERS


def test_unknown_names_are_refused_with_the_near_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"model.fields reads 'grop', which data.items.fields do not declare; did you mean 'group'"):
        pipeline_on(tmp_path, {"items": ["grop"]})


def test_a_user_without_an_event_gets_what_users_like_them_like(tmp_path: Path) -> None:
    fields = {"users": ["taste", "activity"], "events": ["device"], "history_dropout": 0.2, "poso": {"form": "mlp"}}
    pipeline = pipeline_on(tmp_path, fields, **{"data.keep_users_without_events": True})
    lists = pl.read_parquet(pipeline.candidates(Scope(who="all")).files("part-"))
    new = lists.filter(pl.col("user_id") >= NEW)
    assert new["user_id"].n_unique() == GROUPS
    assert new["interest"].min() >= 0, "no stranger who gets what is popular"
    own = new.filter((pl.col("item_id") % GROUPS == pl.col("user_id") % GROUPS) & (pl.col("rank") <= 5))
    assert len(own) > 0.8 * 5 * GROUPS


def test_without_fields_users_without_an_event_get_what_is_popular(tmp_path: Path) -> None:
    pipeline = pipeline_on(tmp_path, {}, **{"data.keep_users_without_events": True})
    lists = pl.read_parquet(pipeline.candidates(Scope(who="all")).files("part-"))
    assert lists.filter(pl.col("user_id") >= NEW)["interest"].unique().to_list() == [-1]
    assert lists.filter(pl.col("user_id") < USERS)["interest"].min() == 0


def test_gates_explain_themselves(tmp_path: Path) -> None:
    fields = {"items": ["group", "price"], "users": ["taste"], "events": ["device"], "gate": {"name": "senet"}, "poso": {"form": "mlp"}}
    pipeline = pipeline_on(tmp_path, fields, **{"train.steps": 8, "train.validate_every": 8, "data.keep_users_without_events": True})
    rows = gates_of(pipeline.model_artifact)
    assert [(row["tower"], row["field"]) for row in rows] == [
        ("items", "id"),
        ("items", "group"),
        ("items", "price"),
        ("events", "device"),
        ("users", "taste"),
        ("poso", "mean of all parts"),
        ("poso", "spread of all parts"),
    ]
    for row in rows:
        slices = ["everyone", "no event", "10 to 99"] if row["tower"] in ("users", "poso") else ["everyone", "10 to 99"]
        assert list(row["means"]) == slices
        assert all(0.0 < mean < 2.0 for mean in row["means"].values())
    assert len({row["means"]["everyone"] for row in rows}) > 1, "gates have moved away from one"
    shown = describe(pipeline.model_artifact.path)
    assert shown["gates of events: device"].startswith("everyone ")
    content = report_content(pipeline, pipeline.measurements, {})
    (section,) = (each for each in sections(content) if each.name == "fields")
    assert [table.caption for table in section.tables] == ["Fields, and how they drift", "Mean gates, by users' events"]
    assert len(section.tables[0].rows) == 4


def test_the_mean_gates_of_items_are_those_of_their_events(tmp_path: Path) -> None:
    changes = {"train.steps": 8, "train.validate_every": 8}
    pipeline = pipeline_on(tmp_path, {"items": ["group"], "gate": {"name": "gatenet"}}, **changes)
    model, sequences = pipeline.model, pipeline.dataset.sequences
    with torch.no_grad():
        every = [torch.from_numpy(np.array(sequences.items)).long()]
        parts = model.items.fields.parts(model.items.ids(every[0]), every[0])
        expected = model.items.fields.sum.gate.weights(parts).mean(dim=(0, 2))
    for row, mean in zip(gates_of(pipeline.model_artifact), expected.tolist(), strict=True):
        assert row["means"]["everyone"] == pytest.approx(mean, abs=1e-4)


def test_the_gates_of_a_sharded_table_are_those_of_the_weights_that_were_written(tmp_path: Path) -> None:
    """A process that holds a share of the items, with its last weights: what it tells is of all items, and of the best ones."""
    row_wise = {"train.sharding": "rows", "train.optimizer.item_table": "row-wise"}
    fields = {"items": ["group"], "users": ["taste"], "gate": {"name": "gatenet"}}
    pipeline = pipeline_on(tmp_path, fields, **row_wise, **{"train.steps": 8, "train.validate_every": 8})
    written, seed = pipeline.model_artifact.file("model.safetensors"), pipeline.recipe.seed
    for rank in (0, 1):
        share, _ = Beginning(pipeline.recipe, pipeline.dataset).model(World(rank, 2))
        assert share.items.sharded
        before = mean_gates(share, pipeline.dataset, seed, TensorFile(written))
        _take_best(share, written)
        found = mean_gates(share, pipeline.dataset, seed, TensorFile(written))
        assert found == gates_of(pipeline.model_artifact)
        assert [row["field"] for row in found] == ["id", "group", "taste"]
        assert found != before, "fresh weights have other gates"


def test_gates_over_hidden_layers_are_told(tmp_path: Path) -> None:
    fields = {"items": ["group"], "users": ["taste"], "layers": 3, "gate": {"name": "gatenet", "embedding": "none", "hidden": True}}
    pipeline = pipeline_on(tmp_path, fields, **{"train.steps": 8, "train.validate_every": 8})
    rows = gates_of(pipeline.model_artifact)
    assert [(row["tower"], row["field"]) for row in rows] == [(tower, f"hidden layer {n}") for tower in ("items", "users") for n in (1, 2)]
    model, sequences = pipeline.model, pipeline.dataset.sequences
    with torch.no_grad():
        every = torch.from_numpy(np.array(sequences.items)).long()
        linear, relu, gate = model.items.fields.sum.layers[:3]
        hidden = relu(linear(model.items.fields.parts(model.items.ids(every), every).flatten(1)))
        expected = 2 * torch.sigmoid(hidden @ gate.matrix.weight.T)
    assert rows[0]["means"]["everyone"] == pytest.approx(float(expected.mean()), abs=1e-4)


def test_nothing_is_said_of_gates_where_nothing_is_gated(tmp_path: Path) -> None:
    pipeline = pipeline_on(tmp_path, {"items": ["group"]}, **{"train.steps": 2, "train.validate_every": 2})
    assert gates_of(pipeline.model_artifact) == []
    assert not [name for name in describe(pipeline.model_artifact.path) if name.startswith("gates")]


def test_cold_users_and_items_are_slices_beside_popularity(tmp_path: Path) -> None:
    """Cut in time: who begins after the cut has no history, and what appears after it no event."""
    changes = {
        "split": {"protocol": "global-time", "valid_from": 9, "test_from": 10, "cold_items": True},
        "train.steps": 4,
        "train.validate_every": 4,
        "evaluate.baselines": ["popular"],
    }
    pipeline = pipeline_on(tmp_path, {"items": ["group"], "users": ["taste"]}, **changes)
    late = {"user_id": [NEW, NEW, NEW + 1, NEW + 1], "item_id": [NEW, 1, 2, 3], "timestamp": [10, 11, 8, 10], "device": ["tv"] * 4}
    log = tmp_path / "log.parquet"
    pl.concat([pl.read_parquet(log), pl.DataFrame(late)], how="vertical_relaxed").write_parquet(log)
    wanted = {("history length", "below 1"), ("history length", "1"), ("target age", "new items")}
    for system in (pipeline, pipeline.baselines()["popular"]):
        found = {(each.dimension, each.value): each for each in Measurements.read(system.measurements.file).summary.slices}
        assert wanted <= found.keys()
        assert found["history length", "1"].users == 1


@pytest.mark.parametrize(("fields", "cold"), [(["group"], True), (["group"], False), ([], True), ([], False)])
def test_training_is_watched_on_what_will_be_served_and_asked_for(tmp_path: Path, fields: list[str], cold: bool) -> None:
    split = {"protocol": "global-time", "valid_from": 9, "test_from": 11, "cold_items": cold}
    pipeline = pipeline_on(tmp_path, {"items": fields}, **{"split": split, "train.validation_users": 1000})
    log = tmp_path / "log.parquet"
    late = pl.DataFrame({"user_id": [0, 1], "item_id": [NEW, NEW + 1], "timestamp": [9, 10], "device": ["tv"] * 2})
    pl.concat([pl.read_parquet(log), late], how="vertical_relaxed").write_parquet(log)
    held_out = _watched(Beginning(pipeline.recipe, pipeline.dataset))
    ids, n_items = pipeline.dataset.catalog.item_ids.to_numpy(), pipeline.dataset.catalog.n_items
    asked = set(ids[(held_out.target_keys % n_items).numpy()].tolist())
    assert ({NEW, NEW + 1} <= asked) == (bool(fields) and cold)
    given = set(ids.tolist()) if held_out.blocked is None else set(ids[~held_out.blocked.numpy()].tolist())
    assert (NEW in given) == cold


def test_an_id_that_no_target_follows_is_served_from_its_fields_alone(tmp_path: Path) -> None:
    """Someone's only event teaches its item's id nothing, though it is a training event; a warm start does not forget which ids it knew."""
    changes = {"train.steps": 2, "train.validate_every": 2}
    pipeline = pipeline_on(tmp_path, {"items": ["group"]}, **changes)
    log = tmp_path / "log.parquet"
    once = pl.DataFrame({"user_id": [5000], "item_id": [NEW], "timestamp": [0], "device": ["tv"]})
    pl.concat([pl.read_parquet(log), once], how="vertical_relaxed").write_parquet(log)
    catalog = pipeline.dataset.catalog
    row = int(catalog.rows_of(pl.Series([NEW]))[0])
    assert catalog.events[row] == 1
    trained = load_file(pipeline.model_artifact.file("model.safetensors"))["items.fields.trained"]
    assert trained.tolist() == [number < ITEMS for number in catalog.item_ids]
    assert torch.equal(pipeline.model.items.fields.trained, trained)
    with torch.no_grad():
        alone = pipeline.model.items.fields.vectors(torch.tensor([row])).sum(dim=1)
        assert torch.equal(pipeline.model.item_vectors(torch.tensor([row])), alone)
    fresh, _ = Beginning(pipeline.recipe, pipeline.dataset).model()
    assert not fresh.items.fields.trained.any()
    warm, _ = Beginning(pipeline.recipe, pipeline.dataset, pipeline.model_artifact).model()
    assert torch.equal(warm.items.fields.trained, trained)


def test_a_warm_start_knows_values_by_their_names(tmp_path: Path) -> None:
    fields, few = {"items": ["group", "price"], "users": ["taste"]}, {"train.steps": 4, "train.validate_every": 4}
    yesterday = pipeline_on(tmp_path / "yesterday", fields, **few).model_artifact
    today = pipeline_on(tmp_path / "today", fields, **few, **{"train.start_from": str(yesterday.path)})
    items = pl.read_parquet(tmp_path / "today" / "items.parquet")
    items.with_columns(pl.col("group").replace("g1", "new")).write_parquet(tmp_path / "today" / "items.parquet")
    model, _ = Beginning(today.recipe, today.dataset, yesterday).model()
    name, old = "items.fields.vectors.table", load_file(yesterday.file("model.safetensors"))
    fresh, _ = Beginning(today.recipe, today.dataset).model()
    assert model.field_tables[name].rows.to_list() == [
        "group#0",
        "group=g0",
        "group=g2",
        "group=g3",
        "group=new",
        "price#0",
        "price#1/2",
        "price#2/2",
    ]
    state = model.state_dict()
    assert torch.equal(state[name][[0, 1, 2, 3, 5, 6, 7]], old[name][[0, 1, 3, 4, 5, 6, 7]])
    assert torch.equal(state[name][4], fresh.state_dict()[name][4])
    assert torch.equal(state["user_fields.fields.vectors.table"], old["user_fields.fields.vectors.table"])
    assert today.model_artifact.summary["start"]["model"] == yesterday.id


def test_a_warm_start_refuses_fields_that_mean_something_else_and_takes_renamed_columns(tmp_path: Path) -> None:
    """Layers and gates know fields by their places, which follow from the kinds."""
    fields, few = {"items": ["group", "price"], "gate": {"name": "gatenet"}}, {"train.steps": 2, "train.validate_every": 2}
    yesterday = pipeline_on(tmp_path / "yesterday", fields, **few).model_artifact
    assert yesterday.summary["fields"] == {"items.fields.group": "categorical", "items.fields.price": "numeric in buckets"}
    price = {"kind": "numeric", "buckets": 2}
    declared = {
        "another": {"group": "multi", "price": price},
        "renamed": {"group": {"kind": "categorical", "column": "kind"}, "price": price},
    }
    today = {name: pipeline_on(tmp_path / name, fields, **few, **{"data.items.fields": each}) for name, each in declared.items()}
    for name in today:
        items = pl.read_parquet(tmp_path / name / "items.parquet")
        items.with_columns(kind="group", group=pl.concat_list("group")).write_parquet(tmp_path / name / "items.parquet")
    said = "data.items.fields.group is 'multi', the model to start from has 'categorical'"
    with pytest.raises(UsageError, match=said):
        Beginning(today["another"].recipe, today["another"].dataset, yesterday).model()
    model, _ = Beginning(today["renamed"].recipe, today["renamed"].dataset, yesterday).model()
    assert torch.equal(model.items.fields.vectors.table, load_file(yesterday.file("model.safetensors"))["items.fields.vectors.table"])
    assert other_settings(today["another"].recipe, yesterday)
    assert not other_settings(today["renamed"].recipe, yesterday)
