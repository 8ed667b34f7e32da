"""Publishers at once, one of them killed again and again, and a reader who must never see anything but a whole version."""

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from retrieval.core.artifacts import Workspace
from retrieval.core.publication import Publication

EVERY_MOMENT = bool(os.environ.get("RETRIEVAL_EVERY_MOMENT"))
SECONDS = 60 if EVERY_MOMENT else 4
SCRIPT = Path(__file__).with_name("publishers.py")
ROOT = Path(__file__).parents[2]


def started(role: str, root: Path, seed: int, seconds: float) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    words = [sys.executable, str(SCRIPT), role, str(root), str(seed), str(seconds)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def published_by(said: str) -> dict[int, str]:
    """Number -> name of the versions that a publisher spoke of; a kill may have cut its last word short."""
    lines = [line.split() for line in said.splitlines(keepends=True) if line.endswith("\n")]
    return {int(number): name for number, name in lines}


def test_publishers_and_a_reader(tmp_path: Path) -> None:
    draw = random.Random(7)
    steady, reader = started("publish", tmp_path, 1, SECONDS), started("read", tmp_path, 0, SECONDS)
    end, victims, kills = time.monotonic() + SECONDS, [], 0
    while time.monotonic() < end - 1:
        victim = started("publish", tmp_path, 100 + kills, SECONDS)
        time.sleep(0.5 + draw.random())
        victim.send_signal(signal.SIGKILL)
        kills += 1
        victims.append(victim.communicate(timeout=60)[0])
    said, error = steady.communicate(timeout=60)
    assert steady.returncode == 0, error
    read, error = reader.communicate(timeout=60)
    assert reader.returncode == 0, error
    announced = {number: name for each in [said, *victims] for number, name in published_by(each).items()}
    assert sum(len(published_by(each)) for each in [said, *victims]) == len(announced), "one number, two winners"
    publication = Publication(tmp_path, "shop")
    found = {version.number: version.date for version in publication.versions()}
    assert {number: found.get(number) for number in announced} == announced, "a version was lost"
    moves = publication.moves()
    assert all(after.before == before.after for before, after in itertools.pairwise(moves)), "somebody published on what was gone"
    times, versions = (int(word) for word in read.split())
    assert times >= versions > 2
    print(f"{kills} kills, {len(announced)} versions, {times} reads of {versions} versions")
    current = publication.current()
    pointer = (publication.folder / "current.json").read_bytes()
    publication.rollback(why="back")
    publication.rollback(current.number, why="and forth")
    assert (publication.folder / "current.json").read_bytes() == pointer


def in_a_child(work: Callable[[], object], folder: str, moment: int) -> tuple[int, int]:
    """The exit code of a fork that does the work and dies at an operation on files of the folder, and how many it came to."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        done = 0

        def hook(event: str, arguments: tuple) -> None:
            nonlocal done
            if event in {"open", "os.mkdir", "os.rename", "os.remove", "os.link"} and any(folder in str(each) for each in arguments[:2]):
                done += 1
                if done == moment:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        work()
        os.write(writing, str(done).encode())
        os._exit(0)
    os.close(writing)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with os.fdopen(reading) as said:
        return code, int(said.read() or 0)


@pytest.mark.parametrize("act", ["publish", "rollback"])
def test_killed_at_every_operation_a_publication_is_whole_and_goes_on(tmp_path: Path, act: str) -> None:
    workspace = Workspace(tmp_path)
    for name in ("a1", "a2", "a3"):
        with workspace.create("candidates", name, settings={}, inputs={}) as staged:
            staged.path("part.txt").write_text(name)

    def prepared(name: str) -> tuple[Publication, Callable[[], object]]:
        publication = Publication(tmp_path, name)
        for number, each in enumerate(("a1", "a2")):
            publication.publish(each, {"candidates": workspace.open("candidates", each)}, {}, instead_of=number, why="before")
        if act == "rollback":
            return publication, lambda: publication.rollback(1, why="test")
        last = {"candidates": workspace.open("candidates", "a3")}
        return publication, lambda: publication.publish("a3", last, {}, instead_of=2, why="test")

    code, points = in_a_child(prepared("counted")[1], "published/counted", 0)
    assert (code, points > 5) == (0, True)
    for moment in range(1, points + 1):
        publication, work = prepared(f"shop{moment}")
        code, _ = in_a_child(work, f"published/shop{moment}", moment)
        assert code == -signal.SIGKILL
        after = {"publish": 3, "rollback": 1}[act]
        current = publication.current().number
        assert current in (2, after)
        assert publication.artifact(publication.current(), "candidates").file("part.txt").read_text() == f"a{current}"
        if current == 2:
            work()
        assert publication.current().number == after
        assert [version.number for version in publication.versions()] == ([1, 2, 3] if act == "publish" else [1, 2])
        moves = publication.moves()
        assert [(move.before, move.after) for move in moves] == [(0, 1), (1, 2), (2, after)]
