"""Published to an s3-compatible store and back, against a server: one winner, nothing torn, nothing damaged, no secret told."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from retrieval.core.artifacts import Workspace
from retrieval.core.errors import ConflictError, IntegrityError, ResourceError, UsageError
from retrieval.core.objects import ObjectStore, pull, push
from retrieval.core.publication import Publication


@pytest.fixture
def store(bucket: str) -> ObjectStore:
    return ObjectStore(f"{bucket}/pre/fix")


def publish(root: Path, day: int, instead_of: int = 0) -> int:
    workspace = Workspace(root)
    with workspace.create("candidates", f"lists{day}", settings={}, inputs={}) as staged:
        staged.path("part.txt").write_text(f"lists {day} of {root.name}")
        staged.path("deep/other.txt").write_text("other")
    made = {"candidates": workspace.open("candidates", f"lists{day}")}
    return Publication(root, "shop").publish(f"2024-01-{day:02d}", made, {}, instead_of=instead_of, why="test").number


def names(store: ObjectStore) -> list[str]:
    return [each["path"] for each in store._library.list(store._store).collect()]


def content(root: Path) -> str:
    publication = Publication(root, "shop")
    return publication.artifact(publication.current(), "candidates").file("part.txt").read_text()


def test_what_is_pushed_comes_back_byte_for_byte(store: ObjectStore, tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    with pytest.raises(UsageError, match="nothing is published"):
        pull(b, "shop", store)
    publish(a, 1)
    push(a, "shop", store)
    pull(b, "shop", store)
    for name in ("published/shop/current.json", "published/shop/versions/000001.json", "candidates/lists1/manifest.json"):
        assert (a / name).read_bytes() == (b / name).read_bytes()
    assert content(b) == "lists 1 of a"
    # Whoever pulled goes on from there, and the first machine after it.
    publish(b, 2, instead_of=1)
    push(b, "shop", store)
    assert pull(a, "shop", store).number == 2
    assert content(a) == "lists 2 of b"
    assert [move.after for move in Publication(a, "shop").moves()] == [1, 2]
    # Another machine has an artifact of the same name already.
    publish(tmp_path / "c", 2)
    with pytest.raises(ConflictError, match="was made here, too"):
        pull(tmp_path / "c", "shop", store)
    # Again changes nothing; a rollback is pushed like a publication.
    push(a, "shop", store)
    Publication(a, "shop").rollback(1, why="bad")
    push(a, "shop", store)
    assert pull(b, "shop", store).number == 1


def test_of_two_publishers_one_wins(store: ObjectStore, tmp_path: Path) -> None:
    roots = [tmp_path / name for name in "abcd"]
    for root in roots:
        publish(root, 1)

    def pushed(root: Path) -> bool:
        try:
            return push(root, "shop", store) is not None
        except ConflictError:
            return False

    with ThreadPoolExecutor(4) as several:
        won = list(several.map(pushed, roots))
    assert won.count(True) == 1
    winner = roots[won.index(True)]
    loser = roots[won.index(False)]
    with pytest.raises(ConflictError):
        push(loser, "shop", store)
    pull(tmp_path / "reader", "shop", store)
    assert (tmp_path / "reader/published/shop/current.json").read_bytes() == (winner / "published/shop/current.json").read_bytes()


def test_the_pointer_is_put_only_in_place_of_the_one_that_was_read(store: ObjectStore) -> None:
    assert store.put("pointer", b"1", None)
    assert not store.put("pointer", b"2", None)
    _, tag = store.read("pointer")
    assert store.put("pointer", b"3", tag)
    assert not store.put("pointer", b"4", tag)
    assert store.read("pointer")[0] == b"3"


def test_a_push_that_died_is_nothing_until_it_is_done(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, reader = tmp_path / "a", tmp_path / "b"
    publish(root, 1)
    upload, sent = ObjectStore.upload, []

    def dying(self: ObjectStore, name: str, source: Path) -> None:
        sent.append(name)
        if len(sent) == 2:
            raise KeyboardInterrupt
        upload(self, name, source)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ObjectStore, "upload", dying)
        push(root, "shop", store)
    assert not any(name.endswith("manifest.json") for name in names(store))
    with pytest.raises(UsageError, match="nothing is published"):
        pull(reader, "shop", store)
    done = sent[0]
    sent.clear()
    monkeypatch.setattr(ObjectStore, "upload", lambda self, name, source: (sent.append(name), upload(self, name, source))[1])
    push(root, "shop", store)
    assert done not in sent
    assert sent[-1].endswith("/manifest.json")
    pull(reader, "shop", store)
    assert content(reader) == "lists 1 of a"


@pytest.mark.parametrize("file", ["part.txt", "manifest.json", "current.json", "000001.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_object_is_refused_and_nothing_changes(store: ObjectStore, tmp_path: Path, file: str, damage: str) -> None:
    root, reader = tmp_path / "a", tmp_path / "b"
    publish(root, 1)
    push(root, "shop", store)
    (name,) = (each for each in names(store) if each.endswith(f"/{file}"))
    found, tag = store.read(name)
    middle = len(found) // 2
    broken = {"flip": found[:middle] + bytes([found[middle] ^ 1]) + found[middle + 1 :], "cut": found[:middle], "gone": b""}[damage]
    if damage == "gone":
        store._library.delete(store._store, name)
    else:
        assert store.put(name, broken, tag)
    with pytest.raises((IntegrityError, UsageError), match=r"damaged|missing|nothing is published"):
        pull(reader, "shop", store)
    assert not (reader / "candidates").exists()
    assert not (reader / "published/shop/current.json").exists()


def test_no_secret_is_told(object_server, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    root = tmp_path / "a"
    publish(root, 1)
    words = [sys.executable, "-m", "retrieval", "--debug", "push", str(recipe_of(tmp_path)), "--to", store.url, "--workspace", str(root)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[2], env=dict(os.environ), check=False)
    assert done.returncode == ResourceError.exit_code, done.stderr
    assert "check AWS_* in the environment" in done.stderr.splitlines()[-1]
    assert object_server.key not in done.stdout + done.stderr
    assert object_server.secret not in done.stdout + done.stderr


def recipe_of(folder: Path) -> Path:
    path = folder / "shop.toml"
    path.write_text('[data]\nname = "shop"\ninteractions = { path = "log.parquet" }\n', encoding="utf-8")
    return path
