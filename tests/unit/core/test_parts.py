"""Parts that outlive their process."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrieval.core import parts as parts_module
from retrieval.core.artifacts import Artifact, StagedArtifact, Workspace
from retrieval.core.errors import ConflictError, ResourceError
from retrieval.core.locks import exclusive
from retrieval.core.parts import own_scratch, resumable_parts


class StoppedError(Exception):
    """Whoever writes dies here."""


def write(workspace: Workspace, names: list[str], *, stop_after: int = 99) -> tuple[Artifact, list[str]]:
    """An artifact of some parts, a file with its name each; the parts that had to be written."""
    written: list[str] = []

    def part(name: str, staged: StagedArtifact) -> None:
        staged.path(f"files/{name}.txt").write_text(name)
        if len(written) == stop_after:
            raise StoppedError
        staged.summary["length"] = len(name)
        written.append(name)

    with workspace.create("thing", "abc", settings={}, inputs={}) as staged, resumable_parts(staged, "thing") as parts:
        for name in names:
            summary = parts.ensure(name, lambda each, name=name: part(name, each))
            assert summary == {"length": len(name)}
    return workspace.open("thing", "abc"), written


def scratch(root: Path) -> Path:
    return root / ".staging/thing-abc"


def test_who_comes_back_writes_what_is_missing_only(tmp_path: Path) -> None:
    workspace, names = Workspace(tmp_path), ["one", "two", "three"]
    with pytest.raises(StoppedError):
        write(workspace, names, stop_after=2)
    assert workspace.find("thing", "abc") is None
    artifact, written = write(workspace, names)
    assert written == ["three"]
    assert [path.read_text() for path in artifact.files("files/")] == sorted(names)
    workspace.drop_scratch("thing", "abc")
    artifact.verify()


def test_what_other_versions_of_libraries_began_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """As after an upgrade between a night that was killed and the one that goes on."""
    workspace, names = Workspace(tmp_path), ["one", "two", "three"]
    with pytest.raises(StoppedError):
        write(workspace, names, stop_after=2)
    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(parts_module, "library_versions", lambda: {"numpy": "0.0"})
        write(workspace, ["one"], stop_after=0)
    assert "begins anew" in "".join(capsys.readouterr())
    assert write(workspace, names)[1] == names


def test_a_damaged_part_is_written_again(tmp_path: Path) -> None:
    workspace, names = Workspace(tmp_path), ["one", "two", "three"]
    with pytest.raises(StoppedError):
        write(workspace, names, stop_after=2)
    (scratch(tmp_path) / "one/files/one.txt").write_text("eno")
    (scratch(tmp_path) / "two/part.json").write_text("{")
    artifact, written = write(workspace, names)
    assert written == names
    artifact.verify()


def test_two_processes_do_not_write_the_same_parts(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with workspace.create("thing", "abc", settings={}, inputs={}) as staged, resumable_parts(staged, "the thing"):
        with pytest.raises(ConflictError, match="is at it"):
            write(workspace, ["one"])
        staged.summary["ended"] = True
    assert workspace.open("thing", "abc").summary == {"ended": True}


def test_scratch_space_in_use_is_not_removed(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with workspace.create("thing", "abc", settings={}, inputs={}) as staged:
        with own_scratch(staged, "the thing") as folder:
            workspace.drop_scratch("thing", "abc")
            assert folder.is_dir()
        workspace.drop_scratch("thing", "abc")
        assert not folder.exists()


def test_scratch_space_removed_before_the_lock_was_had_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(tmp_path)

    @contextlib.contextmanager
    def late(path: Path, what: str) -> Iterator[None]:
        workspace.drop_scratch("thing", "abc")
        with exclusive(path, what):
            yield

    monkeypatch.setattr(parts_module, "exclusive", late)
    with workspace.create("thing", "abc", settings={}, inputs={}) as staged, own_scratch(staged, "the thing") as folder:
        assert folder.is_dir()


def test_a_file_system_without_links_gets_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    artifact, _ = write(Workspace(tmp_path), ["one"])
    assert artifact.file("files/one.txt").stat().st_nlink == 1


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    def full(_: StagedArtifact) -> None:
        raise OSError(28, "No space left on device")

    workspace = Workspace(tmp_path)
    with (
        pytest.raises(ResourceError, match="disk is full"),
        workspace.create("thing", "abc", settings={}, inputs={}) as staged,
        resumable_parts(staged, "thing") as parts,
    ):
        parts.ensure("one", full)
