"""Artifacts are whole or absent, and damage is found before a parser sees it."""

import os
import re
import threading
from pathlib import Path

import pytest

from retrieval.core.artifacts import MANIFEST, FileRecord, Manifest, Workspace, open_artifact, sha256_of, write_manifest
from retrieval.core.errors import IntegrityError, ResourceError, UsageError
from retrieval.core.publication import Publication
from retrieval.core.sealed import read_sealed, sealed_text


def make(workspace: Workspace, artifact_id: str = "abc", text: str = "hello") -> None:
    with workspace.create("model", artifact_id, settings={"a": 1}, inputs={"dataset": "d"}) as staged:
        staged.path("deep/file.txt").write_text(text)
        staged.summary["words"] = 1


def test_a_committed_artifact_can_be_read_back(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    make(workspace)
    artifact = workspace.find("model", "abc")
    assert artifact is not None
    assert artifact.file("deep/file.txt").read_text() == "hello"
    assert artifact.summary == {"words": 1}
    assert artifact.manifest.inputs == {"dataset": "d"}
    assert artifact.manifest.seconds >= 0
    assert artifact.manifest.peak_memory_bytes > 0


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with pytest.raises(ZeroDivisionError), workspace.create("model", "abc", settings={}, inputs={}) as staged:
        staged.path("a").write_text("half")
        raise ZeroDivisionError
    assert workspace.find("model", "abc") is None
    assert list((tmp_path / ".staging").iterdir()) == []


def test_a_promised_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with (
        pytest.raises(IntegrityError, match="promised but not written: b"),
        workspace.create("model", "x", settings={}, inputs={}) as staged,
    ):
        staged.path("a").write_text("there")
        staged.path("b")
    assert workspace.find("model", "x") is None


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damage_is_found_before_the_path_is_given_out(tmp_path: Path, damage: str) -> None:
    workspace = Workspace(tmp_path)
    make(workspace)
    path = tmp_path / "model/abc/deep/file.txt"
    if damage == "flip":
        path.write_text("hellp")
    elif damage == "truncate":
        path.write_text("hell")
    else:
        path.unlink()
    with pytest.raises(IntegrityError) as caught:
        workspace.open("model", "abc").file("deep/file.txt")
    assert caught.value.exit_code == 4
    assert "file.txt" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "{}", '{"schema_version": 99}'])
def test_a_damaged_manifest_is_an_integrity_error(tmp_path: Path, text: str) -> None:
    make(Workspace(tmp_path))
    (tmp_path / "model/abc" / MANIFEST).write_text(text)
    with pytest.raises(IntegrityError):
        open_artifact(tmp_path / "model/abc")


@pytest.mark.parametrize(("name", "said"), [("schema_version", "schema version 9"), ("format", "model of format 9")])
def test_what_another_version_wrote_is_refused(tmp_path: Path, name: str, said: str) -> None:
    make(Workspace(tmp_path))
    path = tmp_path / "model/abc" / MANIFEST
    manifest = read_sealed(Manifest, path)
    path.write_text(sealed_text(manifest.model_copy(update={name: 9})))
    with pytest.raises(IntegrityError, match=f"{said}; expected .* 1; another version of this package wrote it"):
        open_artifact(tmp_path / "model/abc")
    path.write_text(sealed_text(manifest).replace(f'"{name}": 1', f'"{name}": 9'))
    with pytest.raises(IntegrityError, match="is damaged: sha256"):
        open_artifact(tmp_path / "model/abc")


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b"])
def test_a_file_cannot_leave_its_artifact(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="leaves"), Workspace(tmp_path).create("model", "x", settings={}, inputs={}) as staged:
        staged.path(name)


def test_two_writers_of_one_artifact_leave_one_whole_artifact(tmp_path: Path) -> None:
    barrier, errors = threading.Barrier(2), []

    def write() -> None:
        try:
            with Workspace(tmp_path).create("model", "same", settings={}, inputs={}) as staged:
                staged.path("a").write_text("x" * 1000)
                barrier.wait(10)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    artifact = Workspace(tmp_path).open("model", "same")
    artifact.verify()
    assert list((tmp_path / ".staging").iterdir()) == []


def test_a_workspace_that_cannot_be_made_is_a_resource_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="choose a --workspace") as caught:
        make(Workspace(tmp_path / "file" / "workspace"))
    assert caught.value.exit_code == 6


def test_a_full_disk_is_a_resource_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="disk is full"), Workspace(tmp_path).create("model", "x", settings={}, inputs={}) as staged:
        staged.path("a").write_text("half")
        raise OSError(28, "No space left on device")
    assert list((tmp_path / ".staging").iterdir()) == []


def test_an_id_is_found_by_its_beginning(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    make(workspace, "abc")
    make(workspace, "abd")
    assert workspace.open("model", "abc").id == "abc"
    with pytest.raises(UsageError, match="2 model artifacts match 'ab'"):
        workspace.open("model", "ab")


@pytest.mark.parametrize("name", ["../../outside", "/etc/passwd", "a/../../b", ""])
def test_a_manifest_cannot_send_a_reader_out_of_its_artifact(tmp_path: Path, name: str) -> None:
    make(Workspace(tmp_path))
    (tmp_path / "outside").write_text("mine")
    folder = tmp_path / "model/abc"
    manifest = open_artifact(folder).manifest
    record = FileRecord(sha256=sha256_of(tmp_path / "outside"), size=4)
    write_manifest(folder, manifest.model_copy(update={"files": {name: record}}))
    with pytest.raises((UsageError, IntegrityError), match="leaves the artifact"):
        open_artifact(folder).file(name)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, str]]:
    """What was synced, and what was renamed or linked to where, in order; paths relative to the workspace, without what is drawn."""
    done: list[tuple[str, str]] = []
    sync, rename = os.fsync, Path.rename

    def told(path: str | Path) -> str:
        return re.sub(r"\.\d+-[0-9a-f]+\.part", "", str(Path(path).relative_to(tmp_path)))

    def synced(descriptor: int) -> None:
        done.append(("sync", told(Path(f"/proc/self/fd/{descriptor}").readlink())))
        sync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        done.append(("rename", told(target)))
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    return done


def test_files_and_their_names_are_on_the_disk_before_an_artifact_has_its_own(steps, tmp_path: Path) -> None:
    """A file system may keep a rename through a power cut and lose the names in the folder that was renamed."""
    make(Workspace(tmp_path))
    moment, staged = steps.index(("rename", "model/abc")), ".staging/model-abc"
    before, after = steps[:moment], steps[moment + 1 :]
    assert {path for what, path in before if what == "sync"} == {
        *(f"{staged}{below}" for below in ("", "/deep", "/deep/file.txt", "/manifest.json")),
        ".",
    }
    assert before.index(("sync", staged)) > before.index(("sync", f"{staged}/manifest.json"))
    assert after == [("sync", "model")]


def test_the_first_publication_of_a_name_syncs_the_folders_that_it_makes(steps, tmp_path: Path) -> None:
    with Publication(tmp_path, "shop").alone():
        assert steps == [("sync", "."), ("sync", "published"), ("sync", "published/shop"), ("sync", "published/shop")]
