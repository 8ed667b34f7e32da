"""What nights leave behind is removed when nobody needs it, and nothing else is."""

import datetime as dt
import shutil
from pathlib import Path

import pytest

from retrieval.core.artifacts import Workspace
from retrieval.core.errors import ConflictError, IntegrityError, QualityGateError, UsageError
from retrieval.core.locks import exclusive
from retrieval.core.publication import Publication
from retrieval.core.removal import put_away
from retrieval.stages.ensure import Stages
from retrieval.stages.nightly import collect as collect_module
from retrieval.stages.nightly import verbs
from retrieval.stages.nightly.collect import collect
from retrieval.stages.nightly.records import Nights as Records
from retrieval.stages.pipeline import Pipeline


def test_only_what_nobody_needs_is_collected(again) -> None:
    recipe = again.request(7, "nightly.keep=2").recipe()
    (again.workspace / "model/foreign").mkdir()
    would = collect(again.workspace, recipe, dry_run=True)
    found = verbs.gc(again.workspace, recipe, dry_run=False)
    publication = Publication(again.workspace, "walk")
    assert would.paths == found.paths
    assert found.bytes > 0
    assert (again.workspace / "model/foreign").is_dir()
    gone = {str(path.relative_to(again.workspace)) for path in found.paths}
    kept = {f"{kind}/{each.id}" for kind, each in publication.current().artifacts.items()}
    assert not gone & kept
    first = {f"{kind}/{each.id}" for kind, each in publication.version(1).artifacts.items()}
    # What the last two nights looked at stays: the model of the first night was the start of the second.
    assert {name for name in first if name.startswith(("dataset/", "candidates/"))} & gone
    assert again.run(7).status == "unchanged"
    with exclusive(again.workspace / "nights/walk/.lock", "x"), pytest.raises(ConflictError):
        verbs.gc(again.workspace, recipe, dry_run=True)


def test_what_a_night_only_found_is_not_its_to_collect_and_what_it_began_is(again) -> None:
    recipe, workspace = again.request(8).recipe(), Workspace(again.workspace)
    manual = Pipeline(recipe, Stages(workspace)).dataset_artifact
    with pytest.raises(QualityGateError, match="gate primary"):
        again.run(8, "nightly.model.min_primary=1.0")
    records = Records(again.workspace, "walk")
    own = next(stage.id for stage in records.last().stages if stage.kind == "index")
    # As if it had been killed in the next stages.
    records.write(records.last().model_copy(update={"begun": (*records.last().begun, ("model", "deadbeef"))}))
    (workspace.scratch("model", "deadbeef") / "step-1").write_text("a checkpoint")
    with workspace.create("candidates", "abc", settings={"scope": {"shards": 3}}, inputs={"index": own}) as staged:
        staged.path("x").write_text("a shard that nobody joined")
    left = again.workspace / "model/.abc.0.gone"
    left.mkdir()

    def there() -> list[bool]:
        verbs.gc(again.workspace, recipe, dry_run=False)
        scratch = workspace.idle_scratch("model", "deadbeef") is not None
        return [scratch, *(workspace.find(*name) is not None for name in (("candidates", "abc"), ("index", own), ("dataset", manual.id)))]

    assert there() == [True, True, True, True]
    assert not left.exists()
    records.write(records.next("walk", dt.date(2024, 1, 9), again.request(9).as_json(), {}))
    assert there() == [True, True, True, True]
    records.write(records.next("walk", dt.date(2024, 1, 10), again.request(10).as_json(), {}))
    assert there() == [False, False, False, True]


def test_a_machine_that_pulls_collects_what_it_pulled(again) -> None:
    shutil.rmtree(again.workspace / "nights")
    recipe = again.request(7, "nightly.keep=2").recipe()
    publication = Publication(again.workspace, "walk")
    first = publication.version(1)
    assert {path.name for path in verbs.gc(again.workspace, recipe, dry_run=False).paths} == {
        reference.id for reference in first.artifacts.values()
    }
    assert publication.rollback(2, why="still whole").number == 2
    assert verbs.gc(again.workspace, recipe, dry_run=False).paths == []
    with pytest.raises(UsageError, match="no night ever ran"):
        verbs.gc(again.folder / "nowhere", recipe, dry_run=False)


def test_no_rollback_goes_to_what_is_being_collected(again, monkeypatch) -> None:
    recipe, tried = again.request(7, "nightly.keep=2").recipe(), []

    def rollback(name: str) -> None:
        with pytest.raises(ConflictError):
            verbs.rollback(again.workspace, recipe, 1, "in between")
        tried.append(name)
        if name == "model":
            raise OSError("one that cannot be removed costs the others nothing")

    def meanwhile(path: Path) -> Path:
        rollback(path.parent.name)
        return put_away(path)

    monkeypatch.setattr(collect_module, "put_away", meanwhile)
    found = verbs.gc(again.workspace, recipe, dry_run=False)
    assert len(tried) == len(found.paths) > 2
    assert {path.parent.name for path in found.paths if path.exists()} <= {"model"}
    with pytest.raises(IntegrityError):
        verbs.rollback(again.workspace, recipe, 1, "too late")
    assert again.pointer()["version"] == 3
