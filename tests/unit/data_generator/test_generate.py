"""The generated folder: deterministic, whole or absent, reused or refused."""

import hashlib
import json
from pathlib import Path

import polars as pl
import pytest

from retrieval.core.errors import ConflictError, IntegrityError, ResourceError, UsageError
from retrieval.data.generator import generate as module
from retrieval.data.generator.generate import generate
from retrieval.data.generator.settings import GeneratorSettings

TREE = {"categories": 5, "subcategories": 4}


def small(**changes) -> GeneratorSettings:
    return GeneratorSettings(**({"users": 700, "items": 200, "days": 20, "catalog": TREE} | changes))


def bytes_of(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_the_folder_holds_what_the_report_says(tmp_path):
    report = generate(small(), tmp_path / "log")
    log = pl.read_parquet(tmp_path / "log/interactions/*.parquet")
    items, users = pl.read_parquet(tmp_path / "log/items.parquet"), pl.read_parquet(tmp_path / "log/users.parquet")
    assert (report.events, report.items, report.users, report.topics, report.reused) == (log.height, items.height, users.height, 20, False)
    assert log.schema == {"user_id": pl.Int64, "item_id": pl.Int64, "timestamp": pl.Int64, "kind": pl.String}
    assert items["item_id"].is_unique().all()
    assert users["user_id"].is_unique().all()
    assert set(log["item_id"]) <= set(items["item_id"])
    assert set(log["user_id"]) == set(users["user_id"])


def test_no_memory_of_threads_or_of_how_blocks_are_written(tmp_path, monkeypatch):
    settings = small(behaviour={"events_per_user": 1000}, users=600, catalog=TREE)
    generate(settings, tmp_path / "one", threads=1)
    generate(settings, tmp_path / "four", threads=4)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "four")
    monkeypatch.setattr(module, "_PART_ROWS", 100_000)
    report = generate(settings, tmp_path / "parts", threads=3)
    assert sum(name.startswith("interactions/") for name in report.files) > 1
    assert pl.read_parquet(tmp_path / "parts/interactions/*.parquet").equals(pl.read_parquet(tmp_path / "one/interactions/*.parquet"))


def test_another_seed_gives_another_log_and_the_same_seed_the_same(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        generate(small(seed=seed), tmp_path / name)
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")
    assert all(bytes_of(tmp_path / "a")[name] != bytes_of(tmp_path / "c")[name] for name in bytes_of(tmp_path / "a"))


def test_ids_are_in_no_order_of_popularity_or_age(tmp_path):
    generate(small(items=2000), tmp_path / "log")
    log, items = pl.read_parquet(tmp_path / "log/interactions/*.parquet"), pl.read_parquet(tmp_path / "log/items.parquet")
    events = log.group_by("item_id").len().join(items, on="item_id")
    assert abs(events.select(pl.corr("item_id", "len", method="spearman")).item()) < 0.1
    assert abs(items.select(pl.corr("item_id", "created_at", method="spearman")).item()) < 0.1


def test_titles_and_categories_exercise_escaping(tmp_path):
    generate(small(items=3000, catalog={}), tmp_path / "log")
    items = pl.read_parquet(tmp_path / "log/items.parquet")
    text = "".join(items["title"])
    assert all(character in text for character in ",\"&<>'éŁ東")
    assert items["title"].null_count() == 0
    assert items["categories"].list.len().eq(2).all()
    assert items["categories"].n_unique() == 128
    assert items.select(pl.col("price").is_finite().all()).item()


def test_a_tree_larger_than_the_word_lists_still_has_distinct_names(tmp_path):
    generate(small(items=500, catalog={"categories": 40, "subcategories": 10}), tmp_path / "log")
    topics = pl.read_parquet(tmp_path / "log/planted_items.parquet")
    assert topics.group_by("category").agg(pl.col("topic").n_unique())["topic"].max() == 1
    assert topics["topic"].n_unique() == 400


def test_the_smallest_log(tmp_path):
    settings = GeneratorSettings(
        users=1,
        items=1,
        days=1,
        catalog={"categories": 1, "subcategories": 1},
        behaviour={"interests": 1, "drift": 0.0, "events_per_user": 1},
    )
    report = generate(settings, tmp_path / "log")
    log = pl.read_parquet(tmp_path / "log/interactions/*.parquet")
    assert report.events == log.height >= 1
    assert log["timestamp"].is_between(settings.start, settings.start + 86_400, closed="left").all()


def test_without_repeats_a_user_meets_an_item_once(tmp_path):
    generate(small(behaviour={"repeats": False}), tmp_path / "log")
    log = pl.read_parquet(tmp_path / "log/interactions/*.parquet")
    assert not log.select("user_id", "item_id").is_duplicated().any()


def test_the_same_settings_are_reused_and_others_refused(tmp_path):
    first = generate(small(), tmp_path / "log")
    before = bytes_of(tmp_path / "log")
    again = generate(small(), tmp_path / "log")
    assert (again.reused, again.events, again.files) == (True, first.events, first.files)
    with pytest.raises(UsageError, match="holds a log of other settings: users = 700"):
        generate(small(users=701), tmp_path / "log")
    assert bytes_of(tmp_path / "log") == before


def test_a_folder_with_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="not empty"):
        generate(small(), tmp_path / "mine")
    with pytest.raises(UsageError, match="is a file"):
        generate(small(), tmp_path / "mine/thesis.txt")
    assert bytes_of(tmp_path).keys() == {"mine/thesis.txt"}


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "log").mkdir()
    assert generate(small(users=10), tmp_path / "log").events > 0


@pytest.mark.parametrize("damage", ["flip", "delete", "record"])
def test_a_damaged_log_is_not_reused(tmp_path, damage):
    generate(small(users=50), tmp_path / "log")
    target = tmp_path / "log" / ("generator.json" if damage == "record" else "items.parquet")
    if damage == "delete":
        target.unlink()
    else:
        data = bytearray(target.read_bytes())
        data[len(data) // 2 if damage == "flip" else 0] ^= 1
        target.write_bytes(data)
    with pytest.raises(IntegrityError, match="delete the folder"):
        generate(small(users=50), tmp_path / "log")


def test_nothing_half_written_remains(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "block_events", fail)
    with pytest.raises(ResourceError, match="disk is full"):
        generate(small(), tmp_path / "log")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_filled_meanwhile_is_a_conflict(tmp_path, monkeypatch):
    write = module._write

    def write_slowly(*arguments):
        record = write(*arguments)
        (tmp_path / "log").mkdir()
        (tmp_path / "log/other").write_text("x")
        return record

    monkeypatch.setattr(module, "_write", write_slowly)
    with pytest.raises(ConflictError, match="another process"):
        generate(small(users=10), tmp_path / "log")
    assert bytes_of(tmp_path).keys() == {"log/other"}


def test_too_little_space_is_said_before_any_work(tmp_path):
    with pytest.raises(ResourceError, match="MB free"):
        generate(small(users=2_000_000_000, behaviour={"events_per_user": 1e5}), tmp_path / "log")
    assert list(tmp_path.iterdir()) == []


def test_the_record_names_every_file_with_its_sha256(tmp_path):
    generate(small(users=20), tmp_path / "log")
    record = json.loads((tmp_path / "log/generator.json").read_text())
    found = bytes_of(tmp_path / "log")
    found.pop("generator.json")
    assert record["files"] == found
