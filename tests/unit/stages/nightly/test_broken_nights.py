"""What a night does when something it needs is damaged, full, stopped or killed: it says so, and blocks nothing that comes after it."""

import contextlib
import datetime as dt
import errno
import os
import signal
import sys
from pathlib import Path

import polars as pl
import pytest

from retrieval.cli.main import _run
from retrieval.core.errors import (
    DataContractError,
    IntegrityError,
    InterruptedRunError,
    QualityGateError,
    ResourceError,
)
from retrieval.core.locks import exclusive
from retrieval.core.publication import Publication
from retrieval.core.resources import require_free_space
from retrieval.stages.nightly import night as night_module
from retrieval.stages.nightly import verbs
from retrieval.stages.nightly.records import Nights as Records
from retrieval.stages.nightly.summary import screen


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


def test_damage_to_the_pointer_is_shown_and_a_night_waits_for_a_person(again, capsys) -> None:
    recipe, pointer = again.request(8).recipe(), again.workspace / "published/walk/current.json"
    whole = pointer.read_bytes()
    pointer.write_bytes(whole[:-9])
    found = verbs.status(again.workspace, recipe)
    assert (found["published"], found["last"]["status"], "is damaged" in found["damaged"][0]) == (None, "published", True)
    assert "DAMAGED" in verbs.status_lines(found, again.workspace, recipe)
    assert _run(["status", str(again.recipe), "--workspace", str(again.workspace)]) == 4
    assert "DAMAGED" in capsys.readouterr().out
    with pytest.raises(IntegrityError, match="--to NUMBER"):
        verbs.gc(again.workspace, recipe, dry_run=False)
    with pytest.raises(QualityGateError, match=r"gate published: .*current\.json: is damaged"):
        again.run(8)
    assert verbs.rollback(again.workspace, recipe, 3, "a disk lost a byte").number == 3
    pointer.write_bytes(whole[:-9])
    assert again.run(8, published="nobody can read it").published == 4
    assert (again.pointer()["version"], verbs.status(again.workspace, recipe)["damaged"]) == (4, [])


def test_a_disk_with_too_little_room_stops_a_stage_before_it_begins(again, monkeypatch) -> None:
    asked = []

    def full(folder: Path, needed: int) -> None:
        asked.append(needed)
        require_free_space(folder, 1 << 60)

    with monkeypatch.context() as patch, pytest.raises(ResourceError, match="free"):
        patch.setattr(night_module, "require_free_space", full)
        again.run(8)
    record = Records(again.workspace, "walk").last()
    assert (record.status, record.exit_code, record.stages, len(asked)) == ("failed", 6, (), 1)
    assert again.run(8).status == "published"


def test_a_run_that_was_killed_is_told_as_such(again) -> None:
    records = Records(again.workspace, "walk")
    record = records.next("walk", dt.date(2024, 1, 8), again.request(8).as_json(), {})
    records.write(record)
    assert verbs.told(record, running=True).status == "running"
    assert verbs.status(again.workspace, again.request(8).recipe())["last"]["status"] == "interrupted"
    assert verbs.retry(again.workspace, again.request(8).recipe(), {}, lambda _: None).date == "2024-01-08"


def test_a_failed_stage_is_in_the_record(nights) -> None:
    nights.write(pl.DataFrame({"user_id": [1], "item_id": [2], "timestamp": [None]}, schema_overrides={"timestamp": pl.Int64}))
    with pytest.raises(DataContractError):
        nights.run(5, "data.interactions.time_unit=seconds")
    record = Records(nights.workspace, "walk").last()
    assert (record.status, record.exit_code) == ("failed", 3)
    assert "error" in screen(record)
    assert 'exit_code{recipe="walk"} 3.0' in (nights.workspace / "published/walk/metrics.prom").read_text()


def test_what_comes_after_a_publication_does_not_fail_it(again) -> None:
    record = again.run(8, "nightly.metrics=/proc/no/such/folder")
    assert (record.status, record.exit_code, again.pointer()["version"]) == ("published", 0, 4)


@pytest.mark.parametrize("screen", ["a full disk", "a pipe that nobody reads"])
def test_a_screen_that_takes_nothing_changes_no_exit_code(again, monkeypatch, screen: str) -> None:
    """Such as the files of a crontab, on a disk of logs that is full."""
    codes = []
    for date in ("2024-01-06", "2024-01-07"):
        reader, pipe = os.pipe()
        os.close(reader)
        if screen == "a full disk":
            os.dup2(os.open("/dev/full", os.O_WRONLY), pipe)
        out, err = os.fdopen(pipe, "w"), os.fdopen(os.open("/dev/full", os.O_WRONLY), "w", buffering=1)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            codes.append(_run(["nightly", str(again.recipe), "--workspace", str(again.workspace), "--date", date]))
        for each in (out, err):
            with contextlib.suppress(OSError):
                each.close()
    assert codes == [5, 0]
