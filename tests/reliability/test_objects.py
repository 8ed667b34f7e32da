"""Published to an s3-compatible store and back, against a server: one winner, nothing torn, nothing damaged, no secret told."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from retrieval.core.artifacts import Artifact, Workspace
from retrieval.core.errors import ConflictError, IntegrityError, ResourceError, UsageError
from retrieval.core.objects import ObjectStore
from retrieval.core.publication import Publication, Version
from retrieval.core.shared import SharedPublication


@pytest.fixture
def store(bucket: str) -> ObjectStore:
    return ObjectStore(f"{bucket}/pre/fix")


def publish(root: Path, day: int, instead_of: int = 0) -> int:
    return Publication(root, "shop").publish(f"2024-01-{day:02d}", lists(root, day), {}, instead_of=instead_of, why="test").number


def push(root: Path, store: ObjectStore) -> Version:
    return SharedPublication(store, root, "shop").push()


def pull(root: Path, store: ObjectStore) -> Version:
    return SharedPublication(store, root, "shop").pull()


def names(store: ObjectStore) -> list[str]:
    return [each["path"] for each in store._library.list(store._store).collect()]


def content(root: Path) -> str:
    publication = Publication(root, "shop")
    return publication.artifact(publication.current(), "candidates").file("part.txt").read_text()


def lists(root: Path, day: int) -> dict[str, Artifact]:
    workspace = Workspace(root)
    with workspace.create("candidates", f"lists{day}", settings={}, inputs={}) as staged:
        staged.path("part.txt").write_text(f"lists {day} of {root.name}")
        staged.path("deep/other.txt").write_text("other")
    return {"candidates": workspace.open("candidates", f"lists{day}")}


def test_what_is_pushed_comes_back_byte_for_byte(store: ObjectStore, tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    with pytest.raises(UsageError, match="nothing is published"):
        pull(b, store)
    publish(a, 1)
    push(a, store)
    pull(b, store)
    same = ("current.json", "versions/000001.json", "moves/000001.json")
    for name in (*(f"published/shop/{each}" for each in same), "candidates/lists1/manifest.json"):
        assert (a / name).read_bytes() == (b / name).read_bytes()
    assert content(b) == "lists 1 of a"
    # Whoever pulled goes on from there, and the first machine after it.
    publish(b, 2, instead_of=1)
    push(b, store)
    with pytest.raises(ConflictError, match="another machine published meanwhile"):
        push(a, store)
    assert pull(a, store).number == 2
    assert content(a) == "lists 2 of b"
    # Again changes nothing; a rollback is pushed like a publication.
    before = names(store)
    push(a, store)
    assert names(store) == before
    Publication(a, "shop").rollback(1, why="bad")
    push(a, store)
    assert pull(b, store).number == 1
    assert Publication(a, "shop").moves() == Publication(b, "shop").moves()
    assert [(move.before, move.after, move.why) for move in Publication(b, "shop").moves()][-1] == (2, 1, "bad")


def test_what_was_made_here_too_gives_way_and_what_is_damaged_is_mended(store: ObjectStore, tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    publish(a, 1)
    push(a, store)
    lists(b, 1)
    other = b / "candidates/lists1/deep/other.txt"
    place = other.stat().st_ino
    pull(b, store)
    assert content(b) == "lists 1 of a"
    assert other.stat().st_ino == place, "a file of the same bytes was fetched again"
    for damaged in ("part.txt", "current.json", "versions/000001.json", "moves/000001.json"):
        path = b / "candidates/lists1" / damaged if damaged == "part.txt" else b / "published/shop" / damaged
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b"1", b"7"))
        pull(b, store)
        assert path.read_bytes() == whole


def test_two_histories_are_not_mixed(store: ObjectStore, tmp_path: Path) -> None:
    for name in "ab":
        publish(tmp_path / name, 1)
    push(tmp_path / "a", store)
    for act in (push, pull):
        with pytest.raises(ConflictError, match="does not go on from what is published there; expected one history; publish from one"):
            act(tmp_path / "b", store)
    assert content(tmp_path / "b") == "lists 1 of b"


def test_what_the_lifecycle_removed_is_missed_by_nobody_but_a_rollback(store: ObjectStore, tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    for day in (1, 2, 3):
        publish(a, day, instead_of=day - 1)
    push(a, store)
    (old,) = (name for name in names(store) if "versions/000001" in name)
    store._library.delete(store._store, old)
    pull(b, store)
    publication = Publication(b, "shop")
    assert (publication.numbers(), [version.number for version in publication.given()]) == ([2, 3], [3, 2])
    assert publication.moves() == Publication(a, "shop").moves()
    with pytest.raises(UsageError, match="there is no version 1"):
        publication.rollback(1, why="too late")
    publish(b, 4, instead_of=3)
    push(b, store)
    assert pull(a, store).number == 4
    assert Publication(a, "shop").numbers() == [1, 2, 3, 4]


def test_from_what_is_damaged_in_the_store_a_rollback_leads_away(store: ObjectStore, tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    for day in (1, 2):
        publish(a, day, instead_of=day - 1)
        push(a, store)
    (damaged,) = (name for name in names(store) if "lists2" in name and name.endswith("part.txt"))
    store._library.delete(store._store, damaged)
    shared = SharedPublication(store, b, "shop")
    with pytest.raises(IntegrityError, match="is missing"):
        shared.sync()
    assert not (b / "published").exists()
    shared.sync(artifacts=False)
    earlier = shared.local.earlier()
    shared.fetch(earlier)
    shared.local.rollback(earlier.number, why="damaged", announce=shared.announce)
    assert content(b) == "lists 1 of a"
    assert pull(a, store).number == 1


def test_of_two_publishers_one_wins_and_the_other_never_claimed_to(store: ObjectStore, tmp_path: Path) -> None:
    publish(tmp_path / "first", 1)
    push(tmp_path / "first", store)
    roots = [tmp_path / name for name in "abcd"]
    shared = {root: SharedPublication(store, root, "shop") for root in roots}
    for root in roots:
        shared[root].sync()

    def published(root: Path) -> bool:
        made = lists(root, 2)
        shared[root].send(made.values())
        try:
            Publication(root, "shop").publish("2024-01-02", made, {}, instead_of=1, why=root.name, announce=shared[root].announce)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(4) as several:
        won = list(several.map(published, roots))
    assert won.count(True) == 1
    winner = roots[won.index(True)]
    for root in roots:
        assert Publication(root, "shop").current().number == (2 if root == winner else 1)
    # A version of the same number, which nobody was given, makes room.
    for root in (*roots, tmp_path / "reader"):
        SharedPublication(store, root, "shop").sync()
        assert content(root) == f"lists 2 of {winner.name}"
        for name in ("current.json", "versions/000002.json", "moves/000002.json"):
            assert (root / "published/shop" / name).read_bytes() == (winner / "published/shop" / name).read_bytes()


def test_an_answer_that_got_lost(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path / "a", 1)
    put = ObjectStore.put
    monkeypatch.setattr(ObjectStore, "put", lambda *given: put(*given) and False)
    assert push(tmp_path / "a", store).number == 1


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
        push(root, store)
    assert not any(name.endswith("manifest.json") for name in names(store))
    with pytest.raises(UsageError, match="nothing is published"):
        pull(reader, store)
    done = sent[0]
    sent.clear()
    monkeypatch.setattr(ObjectStore, "upload", lambda self, name, source: (sent.append(name), upload(self, name, source))[1])
    push(root, store)
    assert done not in sent
    assert sent[-1].endswith("/manifest.json")
    pull(reader, store)
    assert content(reader) == "lists 1 of a"


@pytest.mark.parametrize("file", ["part.txt", "manifest.json", "current.json", "versions"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_object_is_refused_and_nothing_changes(store: ObjectStore, tmp_path: Path, file: str, damage: str) -> None:
    root, reader = tmp_path / "a", tmp_path / "b"
    publish(root, 1)
    push(root, store)
    (name,) = (each for each in names(store) if f"/{file}" in each)
    found, tag = store.read(name)
    middle = len(found) // 2
    broken = {"flip": found[:middle] + bytes([found[middle] ^ 1]) + found[middle + 1 :], "cut": found[:middle], "gone": b""}[damage]
    if damage == "gone":
        store._library.delete(store._store, name)
    else:
        assert store.put(name, broken, tag)
    with pytest.raises((IntegrityError, UsageError), match=r"damaged|missing|nothing is published"):
        pull(reader, store)
    assert not (reader / "candidates").exists()
    assert not (reader / "published/shop/current.json").exists()


def test_no_secret_is_told(object_server, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    root = tmp_path / "a"
    publish(root, 1)
    words = [sys.executable, "-m", "retrieval", "--debug", "push", str(recipe_of(tmp_path)), "--store", store.url, "--workspace", str(root)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[2], env=dict(os.environ), check=False)
    assert done.returncode == ResourceError.exit_code, done.stderr
    assert "check AWS_* in the environment" in done.stderr.splitlines()[-1]
    assert object_server.key not in done.stdout + done.stderr
    assert object_server.secret not in done.stdout + done.stderr


def recipe_of(folder: Path) -> Path:
    path = folder / "shop.toml"
    path.write_text('[data]\nname = "shop"\ninteractions = { path = "log.parquet" }\n', encoding="utf-8")
    return path
