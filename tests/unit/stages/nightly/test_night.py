"""A night publishes what is good, keeps what was published where it is not, and does nothing twice."""

import datetime as dt
import json
import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from retrieval.cli.main import _run
from retrieval.core.artifacts import Workspace, open_artifact
from retrieval.core.errors import ConflictError, QualityGateError, UsageError
from retrieval.core.locks import exclusive
from retrieval.core.publication import Publication
from retrieval.index.choice.judge import Finding
from retrieval.stages import build_index
from retrieval.stages.audience import Scope
from retrieval.stages.ensure import Stages
from retrieval.stages.nightly import verbs
from retrieval.stages.nightly.measure import Published
from retrieval.stages.nightly.metrics import write_metrics
from retrieval.stages.nightly.night import run_night
from retrieval.stages.nightly.plan import plan, plan_lines
from retrieval.stages.nightly.records import Nights as Records
from retrieval.stages.nightly.reference import Reference, unspoilt_users
from retrieval.stages.nightly.request import Request, parse_date
from retrieval.stages.nightly.summary import screen
from retrieval.stages.pipeline import Pipeline


def test_every_night_is_published_and_goes_on_from_the_one_before(three) -> None:
    assert [(record.status, record.published, record.exit_code) for record in three.records] == [("published", n, 0) for n in (1, 2, 3)]
    assert [record.trained for record in three.records] == [
        "anew: nothing is published for an earlier day",
        "from version 1, 1 since anew",
        "from version 2, 2 since anew",
    ]
    publication = Publication(three.workspace, "walk")
    starts = [version.about["training"]["start"].rpartition("/")[2] for version in publication.versions()]
    models = [version.artifacts["model"].id for version in publication.versions()]
    assert starts == ["", *models[:2]]
    assert {gate.outcome for gate in three.records[2].gates} == {"held"}


def test_a_night_reads_nothing_after_its_day(three) -> None:
    publication = Publication(three.workspace, "walk")
    last = [publication.artifact(version, "dataset").summary["time"]["last"] for version in publication.versions()]
    assert [dt.datetime.fromtimestamp(time, dt.UTC).date().day for time in last] == [5, 6, 7]
    counts = [publication.artifact(version, "dataset").summary for version in publication.versions()]
    assert [(each["events"], each["filtered"]["later"]) for each in counts] == [(600, 600), (720, 480), (840, 360)]


def test_the_same_night_again_changes_nothing(again) -> None:
    before = {path: path.stat().st_mtime_ns for path in again.workspace.rglob("*") if path.is_file() and "nights" not in path.parts}
    record = run_night(again.request(7), {})
    after = {path: path.stat().st_mtime_ns for path in again.workspace.rglob("*") if path.is_file() and "nights" not in path.parts}
    # The metrics tell of the last run, and a lock of its last owner.
    told = {path for path in after if after[path] != before.get(path)}
    assert (record.status, record.published) == ("unchanged", 3)
    assert record.stages
    assert all(stage.skipped for stage in record.stages)
    assert {path.name for path in told if path.suffix != ".lock"} == {"metrics.prom"}


def test_a_log_that_has_grown_by_the_next_day_gives_the_same_night(again) -> None:
    """Only prepare has another log to read, with another row in quarantine: hours of training are not lost to one event after midnight."""
    with pytest.raises(QualityGateError, match="gate primary"):
        again.run(8, "nightly.model.min_primary=1.0")
    again.grow((7, 3, 11), (None, 3, 11))
    record = again.run(8, "nightly.data.max_drift=1.0")
    made = [stage.stage for stage in record.stages if not stage.skipped]
    assert made[0] == "prepare"
    assert not {"train", "embed", "build-index", "recall", "evaluate"} & set(made)


def test_a_day_is_published_once_whatever_comes_late(again) -> None:
    again.grow((7, 3, 7))
    record = again.run(7)
    assert (record.status, record.published, again.pointer()["version"]) == ("unchanged", 3, 3)
    assert record.rows == 1200
    assert "--again" in screen(record)
    assert plan(again.request(7)).published_already
    anew = run_night(replace(again.request(7), again=True), {})
    assert (anew.status, anew.published, anew.rows) == ("published", 4, 1201)


def test_what_was_rolled_back_stays_back_however_the_log_grows(again) -> None:
    recipe = again.request(7).recipe()
    verbs.rollback(again.workspace, recipe, 0, "complaints")
    for rows in ([(7, 3, 11)], [(7, 3, 7)]):
        again.grow(*rows)
        with pytest.raises(QualityGateError, match="version 3 was rolled back"):
            again.run(7)
    assert Records(again.workspace, "walk").last().stages == ()
    # A day of two versions: the second one is taken back, and the day is published all the same.
    assert again.run(7, rollback="it was right").published == 4
    assert verbs.rollback(again.workspace, recipe, 3, "it was not").number == 3
    assert again.run(7).status == "unchanged"
    with pytest.raises(QualityGateError, match="version 4 was rolled back"):
        run_night(replace(again.request(7), again=True), {})


def without(nights, day: int, share: int) -> None:
    """Take most events of a day out of the log."""
    log = pl.read_parquet(nights.folder / "log.parquet")
    on_day = pl.from_epoch("timestamp").dt.day() == day
    nights.write(log.filter(~on_day | (pl.col("user_id") % share == 0)))


def test_a_thin_day_keeps_yesterday_and_costs_no_training(again) -> None:
    without(again, 8, 10)
    pointer = (again.workspace / "published/walk/current.json").read_bytes()
    with pytest.raises(QualityGateError, match=r"gate volume: 0\.10 x"):
        again.run(8)
    record = Records(again.workspace, "walk").last("2024-01-08")
    assert (record.status, record.exit_code, [stage.stage for stage in record.stages]) == ("held back", 5, ["prepare"])
    assert (again.workspace / "published/walk/current.json").read_bytes() == pointer
    assert "FAILED" in screen(record)
    published = verbs.publish(again.workspace, again.request(8).recipe(), None, {"volume": "a holiday"}, lambda _: None)
    gate = next(gate for gate in Publication(again.workspace, "walk").current().about["gates"] if gate["name"] == "volume")
    assert (published.status, published.published, gate["outcome"], gate["why"]) == ("published", 4, "overridden", "a holiday")
    assert gate["who"]
    past = Publication(again.workspace, "walk").current().about["past"]
    assert (past["day"]["day"], list(past["volumes"].values()), past["read"]) == ("2024-01-07", [120, 120, 120], "2024-01-08")
    assert "overridden by" in screen(published)


def test_a_broken_part_of_a_day_is_seen_in_a_long_log(again) -> None:
    """Forty rows in 1240 pass the contract of this log; of the 160 that are new they are a quarter."""
    again.grow(*[(None, 3, 8)] * 40)
    with pytest.raises(QualityGateError, match=r"gate bad: 25\.81% of 155 rows since 2024-01-07 \(null_user 40\)"):
        again.run(8, "data.contract.max_bad_share=0.05")


def test_ids_that_nobody_will_ask_for_stop_the_night_before_training(again) -> None:
    again.write(pl.read_parquet(again.folder / "log.parquet").with_columns(pl.col("user_id").cast(pl.String)))
    with pytest.raises(QualityGateError, match=r"gate ids: 0\.0% of users \(String ids, were Int64\), 100\.0% of items"):
        again.run(8)
    assert [stage.stage for stage in Records(again.workspace, "walk").last().stages] == ["prepare"]


def test_an_override_of_one_gate_is_none_of_another(again) -> None:
    without(again, 8, 10)
    with pytest.raises(QualityGateError, match="gate short"):
        again.run(8, "recall.n=60", "recall.pool=60", "nightly.lists.max_empty=1.0", volume="known", overlap="longer lists")


def test_a_worse_model_does_not_replace_a_better_one(again) -> None:
    assert again.run(8, "nightly.retrain_every=1", "train.steps=100", "train.optimizer.learning_rate=0.03").published == 4
    with pytest.raises(QualityGateError, match="gate recall: recall@10 -"):
        again.run(9, "nightly.retrain_every=1", "nightly.model.max_loss=0.05")
    record = Records(again.workspace, "walk").last()
    assert "recall all" not in [stage.stage for stage in record.stages]
    assert again.pointer()["version"] == 4


def test_an_index_below_its_own_gate_is_a_gate_of_the_night(again, monkeypatch) -> None:
    monkeypatch.setattr(build_index, "_finding", lambda *_: Finding(0.5, 0.4))
    with pytest.raises(QualityGateError, match="min_recall"):
        again.run(8, "index.min_recall=0.99")
    assert [(gate.name, gate.outcome) for gate in Records(again.workspace, "walk").last().gates][-1] == ("ann", "failed")
    with pytest.raises(QualityGateError, match=r"gate ann: 0\.5"):
        again.run(8)
    assert again.run(8, "index.min_recall=0.99", ann="measuring").status == "published"


def test_what_is_published_and_damaged_is_not_replaced_unseen(again) -> None:
    lists = verbs.status(again.workspace, again.request(7).recipe())["paths"]["candidates"]
    shutil.rmtree(lists)
    with pytest.raises(QualityGateError, match=r"gate published: .*is not what was published"):
        again.run(8)
    changed = verbs.retry(again.workspace, again.request(8).recipe(), {"published": "a disk was lost"}, lambda _: None, new_normal=True)
    assert changed.published == 4
    assert list(Publication(again.workspace, "walk").current().about["past"]["volumes"]) == ["2024-01-08"]


def test_an_older_day_is_not_published(again) -> None:
    with pytest.raises(QualityGateError, match="gate date: 2024-01-06"):
        again.run(6)
    assert again.pointer()["version"] == 3


def test_what_was_rolled_back_stays_back_until_somebody_says_otherwise(again) -> None:
    recipe = again.request(7).recipe()
    assert verbs.rollback(again.workspace, recipe, 0, "complaints").number == 2
    assert 'published_version{recipe="walk"} 2.0' in (again.workspace / "published/walk/metrics.prom").read_text()
    with pytest.raises(QualityGateError, match="version 3 was rolled back"):
        again.run(7)
    with pytest.raises(QualityGateError, match="version 3 was rolled back"):
        verbs.retry(again.workspace, recipe, {}, lambda _: None)
    assert verbs.retry(again.workspace, recipe, {"rollback": "it was right"}, lambda _: None).published == 3
    moves = Publication(again.workspace, "walk").moves()
    assert moves[3].why == "complaints"
    # The version is the one that was made before, and cannot tell.
    assert "; rollback overridden by " in moves[4].why
    assert moves[4].why.endswith(": it was right")
    with pytest.raises(UsageError, match="was published"):
        verbs.retry(again.workspace, recipe, {}, lambda _: None)


def test_every_so_many_nights_training_begins_anew(again) -> None:
    assert again.run(8, "nightly.retrain_every=3").trained == "anew: every 3 nights"
    assert again.run(9, "model.dimension=16").trained == "anew: the published model is another encoder"


def test_users_drawn_anew_every_night_forbid_going_on(again) -> None:
    """A model that goes on has been trained on tomorrow's test users; the published one is compared on those it does not know."""
    record = again.run(8, "split.protocol=comirec")
    assert record.trained == "anew: the split holds out other users every night"


def test_the_published_model_on_its_own_log_is_itself(three) -> None:
    """Over events, targets, lists and figures; and with items it does not know taken out, as if they were not there."""
    recipe = three.request(7).recipe()
    version = Publication(three.workspace, "walk").current()
    artifact = Publication(three.workspace, "walk").artifact(version, "model")
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"start_from": version.about["training"]["start"]})})
    night = Pipeline(recipe, Stages(Workspace(three.workspace)))
    assert night.model_artifact.id == artifact.id
    own, other = night.measurements, Reference(night, artifact, night.dataset_artifact).measurements
    assert pl.read_parquet(other.file("per_user.parquet")).equals(pl.read_parquet(own.file("per_user.parquet")))


def test_the_published_model_gives_only_what_it_knows(again) -> None:
    publication = Publication(again.workspace, "walk")
    night = Pipeline(again.request(10).recipe(), Stages(Workspace(again.workspace)))
    first = publication.version(1)
    reference = Reference(night, publication.artifact(first, "model"), publication.artifact(first, "dataset"))
    known = set(pl.read_parquet(reference.model_artifact.file("item_ids.parquet"))["item_id"])
    unknown = set(night.dataset.catalog.item_ids) - known
    lists = pl.read_parquet(reference.candidates(Scope()).files("part-"))
    assert unknown
    assert set(lists["item_id"]) <= known


def test_the_published_model_is_judged_with_the_re_scorer_that_was_published(again) -> None:
    """And not with one that the night has trained anew."""
    changes = ("rescore.name=din", "rescore.examples=100", "rescore.training.steps=2", "rescore.training.validate_every=2")
    assert again.run(8, *changes).status == "published"
    publication = Publication(again.workspace, "walk")
    version = publication.current()
    for later, name in ((changes, "din"), ((), "none")):
        night = Pipeline(again.request(10, *later).recipe(), Stages(Workspace(again.workspace)))
        assert night.recipe.rescore.name == name
        reference = Published(publication, version, night).reference
        inputs = reference.candidates(Scope()).manifest.inputs
        assert inputs["rescorer"] == version.artifacts["rescorer"].id
        assert len(reference.measurements.summary["metrics"]) > 0
    plain = Published(publication, publication.version(3), Pipeline(again.request(10, *changes).recipe(), night.stages)).reference
    assert "rescorer" not in plain.candidates(Scope()).manifest.inputs


def test_users_whose_targets_the_published_model_has_learned_do_not_judge(again) -> None:
    datasets = [Pipeline(again.request(day).recipe(), Stages(Workspace(again.workspace))).dataset for day in (8, 6)]
    assert len(unspoilt_users(datasets[0], datasets[1])) == 60
    assert len(unspoilt_users(datasets[1], datasets[0])) == 0


def test_a_dry_run_writes_nothing_and_knows_what_is_done(again) -> None:
    before = sorted(again.workspace.rglob("*"))
    done, ahead = plan(again.request(7)), plan(again.request(8))
    assert sorted(again.workspace.rglob("*")) == before
    main = ["prepare", "train", "embed", "build-index", "recall", "evaluate", "recall all"]
    assert [stage.stage for stage in done.stages if stage.done] == main
    assert [stage.stage for stage in ahead.stages if not stage.done and stage.expected][:7] == main
    assert ahead.rows == 1200
    assert ahead.stages[0].artifact.startswith("dataset/")
    assert ahead.training == "from version 3, 3 since anew"
    assert ahead.seconds > 0
    assert "about" in plan_lines(ahead)
    first = plan(Request(again.recipe, dt.date(2024, 1, 8), again.folder / "nowhere"))
    assert first.stages[0].expected is None
    assert "about" not in plan_lines(first)
    assert "not known before a first night: prepare, train" in plan_lines(first)


def test_a_second_night_is_told_who_is_at_it(again) -> None:
    with exclusive(again.workspace / "nights/walk/.lock", "x"), pytest.raises(ConflictError, match="since"):
        again.run(8)
    with exclusive(again.workspace / "nights/walk/.lock", "x"):
        running = verbs.status(again.workspace, again.request(7).recipe())["running"]
    assert running["age_seconds"] >= 0


def test_status_and_history_tell_what_there_is(three) -> None:
    recipe = three.request(7).recipe()
    status, history = verbs.status(three.workspace, recipe), verbs.history(three.workspace, recipe)
    assert (status["published"]["number"], status["running"], status["last"]["status"]) == (3, None, "published")
    open_artifact(Path(status["paths"]["candidates"])).verify()
    assert [run["published"] for run in history["runs"]] == [1, 2, 3]
    assert "version 3 of 2024-01-07" in verbs.status_lines(status, three.workspace, recipe)
    assert len(verbs.history_lines(three.workspace, recipe).splitlines()) == 9
    json.dumps([status, history])


def test_recipes_share_a_folder_of_metrics(again) -> None:
    folder = again.folder / "textfile"
    recipe = again.request(7, f"nightly.metrics={folder}").recipe()
    record = Records(again.workspace, "walk").last()
    for name, code in (("walk", 0), ("other", 5)):
        other = recipe.model_copy(update={"name": name})
        write_metrics(other, Publication(again.workspace, name), record.model_copy(update={"recipe": name, "exit_code": code}))
    said = {path.name: path.read_text() for path in folder.iterdir()}
    assert said.keys() == {"retrieval-walk.prom", "retrieval-other.prom"}
    assert 'exit_code{recipe="other"} 5.0' in said["retrieval-other.prom"]


def test_events_are_json_where_nobody_looks(again, capsys) -> None:
    words = ["nightly", str(again.recipe), "--workspace", str(again.workspace), "--date", "2024-01-07", "--json"]
    assert (_run(words), _run(["--log-text", *words])) == (0, 0)
    told = capsys.readouterr()
    assert [json.loads(line)["status"] for line in told.out.splitlines()] == ["unchanged"] * 2
    lines = [line for line in told.err.splitlines() if "night ended" in line]
    assert (json.loads(lines[0])["exit_code"], lines[1].startswith("{"), len(lines)) == (0, False, 2)


def test_paths_may_hold_the_date(tmp_path: Path) -> None:
    path = tmp_path / "shop.toml"
    path.write_text('[data]\nname = "shop"\ninteractions = { path = "logs/{date}/*.parquet" }\n')
    recipe = Request(path, parse_date("2024-02-29"), tmp_path).recipe()
    assert recipe.data.interactions.path == "logs/2024-02-29/*.parquet"
    assert recipe.data.filters.before == dt.datetime(2024, 3, 1, tzinfo=dt.UTC)
    with pytest.raises(UsageError, match="no day"):
        parse_date("2024-02-30")
    assert (dt.datetime.now(dt.UTC).date() - parse_date("yesterday")).days in (1, 2)


def test_what_was_not_judged_is_seen(three) -> None:
    """By whoever looks at the screen, and by whoever waits for an alert."""
    assert "NOT JUDGED" in screen(three.records[0])
    assert "NOT JUDGED" not in screen(three.records[2])
    publication = Publication(three.workspace, "walk")
    told = [write_metrics(three.request(7).recipe(), publication, three.records[night]).read_text() for night in (0, 2)]
    assert ['gate_judged{recipe="walk",gate="recall"} 1.0' in text for text in told] == [False, True]
