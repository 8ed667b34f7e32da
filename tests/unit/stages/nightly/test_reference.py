"""The published model is judged on the night's log, whatever it reads: fields by its own codings, neighbours, imported vectors."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from retrieval.core.artifacts import Workspace
from retrieval.core.errors import QualityGateError
from retrieval.core.publication import Publication
from retrieval.data.dataset import Dataset
from retrieval.data.fields.recode import codings_of, recoded
from retrieval.stages.audience import Audience, Scope
from retrieval.stages.encode import EncodedHistories
from retrieval.stages.ensure import Stages
from retrieval.stages.nightly.measure import Published
from retrieval.stages.nightly.records import Nights as Records
from retrieval.stages.nightly.reference import Reference
from retrieval.stages.pipeline import Pipeline

ITEMS, USERS = 40, 70
READ = {"items": {"brand", "price", "look"}, "users": {"country"}, "events": {"device", "rating", "agent", "gap"}}
MODEL = (
    'model.fields.items=["brand", "price", "look"]',
    'model.fields.users=["country", "activity"]',
    'model.fields.events=["device", "rating", "agent", "gap"]',
    "model.prior.hours=48",
)


def with_fields(nights) -> tuple[str, ...]:
    """Values of which every day brings new ones that stand before the known, and the settings that declare and read them."""
    log = pl.read_parquet(nights.folder / "log.parquet")
    day = pl.from_epoch("timestamp").dt.day()
    # A user who comes late, with a new country.
    late = log.filter((pl.col("user_id") < 10) & (day > 5)).with_columns(user_id=pl.col("user_id") - 20)
    log = pl.concat([log, late]).sort("timestamp", "user_id")
    nights.write(
        log.with_columns(
            device=pl.format("d{}", 90 - day - pl.col("user_id") % 4),
            rating=(pl.col("item_id") % 7 - 2 * day).cast(pl.Float64),
            agent=pl.format("a{}", pl.col("user_id") % 5),
        )
    )
    looks = np.random.default_rng(3).normal(size=(ITEMS, 4)).tolist()
    items = pl.DataFrame({"item_id": range(ITEMS), "brand": [f"b{99 - item // 3}" for item in range(ITEMS)], "look": looks})
    items.with_columns(price=pl.col("item_id") ** 2 * 1.0).write_parquet(nights.folder / "items.parquet")
    users = pl.DataFrame({"user_id": range(-20, USERS)})
    users.with_columns(country=pl.format("c{}", pl.col("user_id") // 20 + 2)).write_parquet(nights.folder / "users.parquet")
    return (
        f"data.items.path={nights.folder / 'items.parquet'}",
        'data.items.fields={ brand = "categorical", price = "numeric", look = { kind = "vector", dimension = 4 } }',
        f"data.users.path={nights.folder / 'users.parquet'}",
        'data.users.fields={ country = "categorical" }',
        "data.interactions.fields.device=categorical",
        "data.interactions.fields.rating={ kind = 'numeric', buckets = 4 }",
        "data.interactions.fields.agent={ kind = 'categorical', hashed = 8 }",
        "data.interactions.fields.gap=gap",
    )


def pipeline_of(nights, day: int, *changes: str) -> Pipeline:
    return Pipeline(nights.request(day, *changes).recipe(), Stages(Workspace(nights.workspace)))


def first_events(dataset: Dataset, users: pl.Series, count: int) -> np.ndarray:
    """Positions [U, count]."""
    rows = dataset.user_ids.rows_of(users)
    return dataset.sequences.offsets[:-1][rows][:, None] + np.arange(count)


def test_a_coding_reads_the_same_values_in_another_dataset(nights) -> None:
    """Of every kind; the other dataset's own coding has shifted rows, edges and means."""
    changes = with_fields(nights)
    (old, new), recipe = [pipeline_of(nights, day, *changes).dataset for day in (5, 9)], nights.request(9, *changes).recipe()
    read = recoded(new, recipe.data, codings_of(old.fields, READ))
    users, items = old.users["user_id"], old.catalog.item_ids
    rows = {"users": new.user_ids.rows_of(users), "items": new.catalog.rows_of(items), "events": first_events(new, users, 6)}
    there = {"users": np.arange(len(users)), "items": np.arange(len(items)), "events": first_events(old, users, 6)}
    shifted = []
    for side, names in READ.items():
        for name in names:
            found, wanted, own = (getattr(each, side)[name] for each in (read, old.fields, new.fields))
            values = [np.asarray(each.codes if each.values is None else each.values) for each in (found, wanted, own)]
            np.testing.assert_array_equal(values[0][rows[side]], values[1][there[side]], err_msg=name)
            shifted += [] if np.array_equal(values[2][rows[side]], values[1][there[side]]) else [name]
    assert set(shifted) == {"brand", "price", "look", "country", "device", "rating"}
    assert {read.events[name].coding.name for name in ("agent", "gap")} == {"agent", "gap"}


def test_the_published_model_reads_what_it_was_trained_to_read(nights) -> None:
    """Interests after the same events, and vectors of the same items, bit for bit, in a log of four days more."""
    changes = (*with_fields(nights), *MODEL)
    old, new = (pipeline_of(nights, day, *changes) for day in (5, 9))
    reference = Reference(new, old.model_artifact, old.dataset_artifact)
    users = old.dataset.users["user_id"]
    encoders = [(reference.users, new.dataset), (EncodedHistories(old.model, old.dataset), old.dataset)]
    found = []
    for encoder, dataset in encoders:
        rows = dataset.user_ids.rows_of(users)
        audience = Audience(rows, np.full(len(rows), 6), np.full(len(rows), "test"))
        found.append(next(encoder.batches(audience, len(rows))).vectors)
    np.testing.assert_array_equal(*found)
    items = new.dataset.catalog.rows_of(old.dataset.catalog.item_ids)
    made, own = (each.all_items().detach().numpy() for each in (reference.model, old.model))
    np.testing.assert_allclose(made[items, :-1], own[:, :-1], rtol=0, atol=1e-6)
    # The prior's shares are of one more items: all move by the same.
    assert np.ptp(made[items, -1] - own[:, -1]) < 1e-5
    strangers = np.setdiff1d(np.arange(new.dataset.catalog.n_items), items)
    assert len(strangers) >= 1
    assert np.abs(made[strangers, :-1]).sum(axis=1).all()


KINDS = {
    "fields": (MODEL, ("train.steps=100", "train.optimizer.learning_rate=0.03"), ("train.steps=6",)),
    "item-knn": (("model={ name = 'item-knn' }",), ("model.recent=2", "model.shrinkage=0"), ("model.recent=1", "model.neighbours=1")),
    "markov": (("model={ name = 'markov' }",), (), ("model={ name = 'popular' }",)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_two_nights_are_compared_and_a_worse_model_is_refused(nights, kind: str) -> None:
    model, good, worse = KINDS[kind]
    always = (*with_fields(nights), "nightly.retrain_every=1", "nightly.model.max_loss=0.05", "nightly.lists.overlap=[0.0, 1.0]", *model)
    for day in (6, 7):
        assert nights.run(day, *always, *good).status == "published"
    gate = {gate.name: gate for gate in Records(nights.workspace, "walk").last().gates}["recall"]
    assert (gate.outcome, "users" in gate.found) == ("held", True)
    with pytest.raises(QualityGateError, match="gate recall: recall@10 -"):
        nights.run(8, *always, *worse)
    assert nights.pointer()["version"] == 2


def test_neighbours_speak_for_what_they_know(nights) -> None:
    """On its own log the published table is itself; in a later one it passes over events on new items, whichever is last."""
    markov = ("model={ name = 'markov' }",)
    old, new = (pipeline_of(nights, day, *markov) for day in (6, 9))
    itself = Reference(old, old.model_artifact, old.dataset_artifact).measurements
    assert pl.read_parquet(itself.file("per_user.parquet")).equals(pl.read_parquet(old.measurements.file("per_user.parquet")))
    reference = Reference(new, old.model_artifact, old.dataset_artifact)
    lists = pl.read_parquet(reference.candidates(Scope()).files("part-"))
    assert set(lists["item_id"]) <= set(old.dataset.catalog.item_ids)
    table, rows = reference._neighbours(), new.dataset.catalog.rows_of(old.dataset.catalog.item_ids)
    mine = old._neighbours()
    for item in (0, 7, len(rows) - 1):
        theirs = slice(*table.offsets[rows[item] : rows[item] + 2])
        own = slice(*mine.offsets[item : item + 2])
        np.testing.assert_array_equal(table.rows[theirs], rows[mine.rows[own]])
        np.testing.assert_array_equal(table.weights[theirs], mine.weights[own])
    assert not table.known.all()


def imported(nights, day: int, quality: float) -> tuple[str, ...]:
    """Vectors of a night: items on axes, users on what they do next, with noise."""
    log = pl.read_parquet(nights.folder / "log.parquet").filter(pl.from_epoch("timestamp").dt.day() <= day)
    ids, random = log["item_id"].unique().sort().to_list(), np.random.default_rng(day)
    axes = np.eye(64)[ids]
    last = log.group_by("user_id").agg(pl.col("item_id").sort_by("timestamp").tail(6)).sort("user_id")
    wanted = np.stack([np.eye(64)[items].sum(axis=0) for items in last["item_id"].to_list()])
    users = quality * wanted + random.normal(size=wanted.shape)
    folder = Path(nights.folder / f"vectors-{day}-{quality}")
    folder.mkdir()
    pl.DataFrame({"item_id": ids, "vector": axes.tolist()}).write_parquet(folder / "items.parquet")
    pl.DataFrame({"user_id": last["user_id"], "vector": users.tolist()}).write_parquet(folder / "users.parquet")
    paths = {"items": "items", "users": "users", "held_out": "users"}
    inline = ", ".join(f"{name} = '{folder / each}.parquet'" for name, each in paths.items())
    return (f"model={{ name = 'imported', {inline} }}", "nightly.model.max_loss=0.05", "nightly.lists.overlap=[0.0, 1.0]")


def test_imported_vectors_are_compared_with_those_of_the_night_before(nights) -> None:
    for day in (6, 7):
        assert nights.run(day, *imported(nights, day, 9.0)).status == "published"
    gate = {gate.name: gate for gate in Records(nights.workspace, "walk").last().gates}["recall"]
    assert (gate.outcome, " users, " in gate.found) == ("held", True)
    with pytest.raises(QualityGateError, match="gate recall: recall@10 -"):
        nights.run(8, *imported(nights, 8, 0.0))


def test_counts_of_another_catalog_are_no_leak(nights) -> None:
    """Popularity is counted for every item, and the night has more items than the published model."""
    popular = ("model={ name = 'popular' }",)
    records = [nights.run(day, *popular) for day in (5, 8)]
    assert {gate.name: gate.outcome for gate in records[1].gates}["recall"] == "held"


def test_a_field_of_another_column_cannot_be_judged_and_says_so(nights) -> None:
    changes = (*with_fields(nights), *MODEL)
    nights.run(5, *changes)
    publication = Publication(nights.workspace, "walk")
    other = 'data.items.fields.brand={ kind = "categorical", column = "price" }'
    for change, said in (
        (other, "the field items.brand, which the published model reads, is of something else now"),
        ("data.interactions.fields.agent.hashed=9", "names of 'agent' are hashed into 9 rows, and not as the model reads them"),
    ):
        night = pipeline_of(nights, 6, *changes, change)
        published = Published(publication, publication.current(), night)
        assert (published.reference, published.unanswered) == (None, said)
