"""What a night does when something it needs is damaged, full, stopped or killed: it says so, and blocks nothing that comes after it."""

import datetime as dt
import errno
import os
import signal
from pathlib import Path

import polars as pl
import pytest

from retrieval.core.errors import IntegrityError, InterruptedRunError, QualityGateError
from retrieval.core.locks import exclusive
from retrieval.core.publication import Publication
from retrieval.stages.nightly import night as night_module
from retrieval.stages.nightly import verbs
from retrieval.stages.nightly.records import Nights as Records


def test_a_flipped_bit_in_what_is_published_stops_a_night_that_would_replace_it(again) -> None:
    """In a file, which no hash of a manifest shows; and training does not go on from it."""
    weights = Path(verbs.status(again.workspace, again.request(7).recipe())["paths"]["model"]) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(QualityGateError, match=r"gate published: .*model\.safetensors"):
        again.run(8)
    record = again.run(8, published="a bad disk")
    assert (record.status, record.trained.partition(":")[0]) == ("published", "anew")


def test_a_start_that_does_not_fit_costs_a_warm_start_and_no_night(again) -> None:
    again.write(pl.read_parquet(again.folder / "log.parquet").with_columns(pl.format("item-{}", "item_id").alias("item_id")))
    record = again.run(8, ids="new names", coverage="new names", overlap="new names")
    assert record.trained.startswith("anew: the published model knows none of the ")
    assert record.status == "published"
    assert Publication(again.workspace, "walk").current().about["training"]["nights_since_anew"] == 0


def metrics(nights) -> dict[str, float]:
    lines = (nights.workspace / "published/walk/metrics.prom").read_text().splitlines()
    return {
        line.partition("{")[0].removeprefix("retrieval_nightly_"): float(line.split()[-1]) for line in lines if not line.startswith("#")
    }


def test_metrics_tell_of_a_night_that_found_the_pointer_damaged(again) -> None:
    assert metrics(again)["exit_code"] == 0
    pointer = again.workspace / "published/walk/current.json"
    pointer.write_bytes(pointer.read_bytes()[:-4])
    with pytest.raises(QualityGateError, match="gate published"):
        again.run(8)
    told = metrics(again)
    assert (told["exit_code"], told["running"]) == (5, 0)
    assert "published_version" not in told


@pytest.mark.parametrize("place", ["records.replace_text", "night.exclusive"])
def test_metrics_on_another_disk_tell_of_a_full_one(again, monkeypatch, place: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = again.folder / "textfile"
    monkeypatch.setattr(f"retrieval.stages.nightly.{place}", full)
    with pytest.raises(OSError, match="No space left"):
        again.run(8, f"nightly.metrics={folder}")
    assert 'exit_code{recipe="walk"} 6.0' in (folder / "retrieval-walk.prom").read_text()


def test_metrics_of_a_run_that_was_killed_are_no_success(again) -> None:
    records, recipe = Records(again.workspace, "walk"), again.request(8).recipe()
    records.write(records.next("walk", dt.date(2024, 1, 8), again.request(8).as_json(), {}))
    verbs.rollback(again.workspace, recipe, 0, "complaints")
    assert (metrics(again)["exit_code"], metrics(again)["published_version"]) == (-1, 2)
    with exclusive(again.workspace / "nights/walk/.lock", "x"):
        verbs.rollback(again.workspace, recipe, 3, "no complaints")
    assert "exit_code" not in metrics(again)
    assert metrics(again)["running"] == 1


def test_a_night_that_is_told_to_stop_says_so(again, monkeypatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(night_module, "require_installed", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(InterruptedRunError):
        again.run(8)
    record = Records(again.workspace, "walk").last()
    assert (record.status, record.exit_code, metrics(again)["exit_code"]) == ("interrupted", 143, 143)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_damaged_record_stops_no_night_and_no_way_back(again) -> None:
    records, recipe = Records(again.workspace, "walk"), again.request(7).recipe()
    old, new = records.folder / "2023-01-01.001.json", records.folder / "2024-01-07.009.json"
    old.write_text("{")
    assert again.run(7).status == "unchanged"
    assert verbs.rollback(again.workspace, recipe, 0, "complaints").number == 2
    assert len(verbs.history(again.workspace, recipe)["runs"]) == 4
    assert any("2023-01-01.001.json" in text for text in verbs.status(again.workspace, recipe)["damaged"])
    verbs.gc(again.workspace, recipe, dry_run=True)
    # What a late one refers to may be needed, and what it asked for is not known.
    new.write_text("{")
    for act in (lambda: verbs.gc(again.workspace, recipe, dry_run=True), lambda: verbs.retry(again.workspace, recipe, {}, lambda _: None)):
        with pytest.raises(IntegrityError, match=r"2024-01-07\.009\.json: is damaged"):
            act()
