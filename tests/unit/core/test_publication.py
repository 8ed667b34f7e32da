"""Versions are immutable, the pointer moves whole, and what was published comes back byte for byte."""

import os
from pathlib import Path

import pytest

from retrieval.core.artifacts import Artifact, Workspace
from retrieval.core.errors import ConflictError, IntegrityError, UsageError
from retrieval.core.locks import exclusive
from retrieval.core.publication import Publication


def made(root: Path, name: str) -> dict[str, Artifact]:
    """An artifact whose one file holds its name."""
    workspace = Workspace(root)
    with workspace.create("candidates", name, settings={}, inputs={}) as staged:
        staged.path("part.txt").write_text(name)
    return {"candidates": workspace.open("candidates", name)}


def published(publication: Publication, root: Path, name: str, instead_of: int) -> int:
    return publication.publish(f"2024-01-{name}", made(root, name), {}, instead_of=instead_of, why="test").number


@pytest.fixture
def three(tmp_path: Path) -> Publication:
    publication = Publication(tmp_path, "shop")
    assert [published(publication, tmp_path, f"0{number}", number - 1) for number in (1, 2, 3)] == [1, 2, 3]
    return publication


def content(publication: Publication) -> str:
    version = publication.current()
    return publication.artifact(version, "candidates").file("part.txt").read_text()


def test_readers_follow_the_pointer(three: Publication) -> None:
    assert (three.current().number, three.current().date, content(three)) == (3, "2024-01-03", "03")
    assert [(move.before, move.after) for move in three.moves()] == [(0, 1), (1, 2), (2, 3)]


def test_a_rollback_is_byte_identical_and_goes_back_one_by_one(three: Publication, tmp_path: Path) -> None:
    pointer = (three.folder / "current.json").read_bytes()
    assert three.rollback(why="bad").number == 2
    assert content(three) == "02"
    assert three.rollback(why="worse").number == 1
    assert three.rollback(3, why="better").number == 3
    assert (three.folder / "current.json").read_bytes() == pointer
    assert three.published() == [3, 1, 2]
    assert [move.why for move in three.moves()][-3:] == ["bad", "worse", "better"]


def test_there_is_nothing_before_the_first_version(tmp_path: Path) -> None:
    publication = Publication(tmp_path, "shop")
    with pytest.raises(UsageError, match="nothing is published"):
        publication.rollback(why="")
    assert not publication.folder.exists()
    published(publication, tmp_path, "01", 0)
    with pytest.raises(UsageError, match="is the first"):
        publication.rollback(why="")
    with pytest.raises(UsageError, match="no version 9"):
        publication.rollback(9, why="")


def test_whoever_compared_with_an_older_version_publishes_nothing(three: Publication, tmp_path: Path) -> None:
    before = sorted(three.folder.rglob("*"))
    with pytest.raises(ConflictError, match="version 3 was published meanwhile"):
        published(three, tmp_path, "04", 2)
    assert sorted(three.folder.rglob("*")) == before


def test_one_publisher_at_a_time(three: Publication, tmp_path: Path) -> None:
    with exclusive(three.folder / ".lock", "other"), pytest.raises(ConflictError, match=f"process {os.getpid()}"):
        published(three, tmp_path, "04", 3)


def test_a_publisher_that_died_before_the_pointer_moved_is_taken_up(three: Publication, tmp_path: Path, monkeypatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Publication, "_move", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        published(three, tmp_path, "04", 3)
    assert three.current().number == 3
    assert [version.number for version in three.versions()] == [1, 2, 3, 4]
    assert three.publish("2024-01-04", made(tmp_path, "04"), {}, instead_of=3, why="again").number == 4
    assert content(three) == "04"


def test_a_move_whose_pointer_never_moved_is_none(three: Publication) -> None:
    pointer = (three.folder / "current.json").read_bytes()
    three.rollback(why="cut off")
    (three.folder / "current.json").write_bytes(pointer)
    assert len(three.moves()) == 3
    three.rollback(why="done")
    assert [move.why for move in three.moves()] == ["test", "test", "test", "done"]


@pytest.mark.parametrize("victim", ["current.json", "versions/000003.json"])
def test_a_flipped_bit_is_found(three: Publication, victim: str) -> None:
    whole = (three.folder / victim).read_bytes()
    for place in range(len(whole)):
        (three.folder / victim).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises((IntegrityError, UsageError)):
            three.current()


def test_a_manifest_that_is_not_the_published_one_is_refused(three: Publication, tmp_path: Path) -> None:
    manifest = tmp_path / "candidates/02/manifest.json"
    manifest.write_text(manifest.read_text() + " ")
    with pytest.raises(IntegrityError, match="is not what was published"):
        three.rollback(why="")
    assert three.current().number == 3
    (tmp_path / "candidates/01/part.txt").write_text("lo")
    with pytest.raises(IntegrityError, match="is damaged"):
        three.rollback(1, why="")


@pytest.mark.parametrize("cut", [9, 10_000])
@pytest.mark.parametrize(
    "victim", ["current.json", "versions/000003.json", "versions/000001.json", "moves/000001.json", "moves/000003.json"]
)
def test_damage_to_one_small_file_leaves_a_way_out(three: Publication, tmp_path: Path, victim: str, cut: int) -> None:
    """By a rollback to a number, and by a publication; a reader of something else sees nothing of it."""
    file = three.folder / victim
    file.write_bytes(file.read_bytes()[:-cut])
    pointed = -1 if victim == "current.json" else 3
    assert three.pointed() == pointed
    assert set(three.published()) >= ({2, 1} if victim == "current.json" else {1, 2, 3})
    assert [each.number for each in three.versions()] == [n for n in (1, 2, 3) if victim != f"versions/{n:06d}.json"]
    assert three.rollback(2, why="the way out").number == 2
    assert (three.current().number, content(three), three.moves()[-1].after) == (2, "02", 2)
    assert three.published()[0] == 2
    assert published(three, tmp_path, "04", 2) == 4
    moves = sorted(path.stem for path in (three.folder / "moves").iterdir())
    assert moves == [f"{number:06d}" for number in range(1, 6)]


@pytest.mark.parametrize("victim", ["current.json", "versions/000003.json"])
def test_a_publication_takes_the_place_of_what_is_damaged(three: Publication, tmp_path: Path, victim: str) -> None:
    (three.folder / victim).write_text("{")
    pointed = three.pointed()
    with pytest.raises(ConflictError):
        published(three, tmp_path, "03", 2)
    version = three.publish("2024-01-03", made(tmp_path, "03"), {}, instead_of=pointed, why="test")
    assert (three.current().number, content(three)) == (version.number, "03")
    assert three.moves()[-1].after == version.number


def test_a_rollback_that_would_have_to_guess_asks_for_a_number(three: Publication) -> None:
    whole = (three.folder / "current.json").read_text()
    (three.folder / "current.json").write_text(whole[:-9])
    with pytest.raises(IntegrityError, match="--to NUMBER"):
        three.rollback(why="")
    (three.folder / "current.json").write_text(whole)
    (three.folder / "moves/000003.json").write_text("")
    with pytest.raises(UsageError, match=r"the move to version 3 is damaged.*--to NUMBER"):
        three.rollback(why="")
    assert three.current().number == 3


@pytest.mark.parametrize("name", ["../shop", "a/b", "..", "."])
def test_a_name_stays_in_the_workspace(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="no name of a publication"):
        Publication(tmp_path, name)
