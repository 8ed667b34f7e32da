"""Nights on machines whose disks are empty, with the log and what is published in a store: the bytes of one machine with a disk."""

import datetime as dt
import json
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from retrieval.core.artifacts import Artifact
from retrieval.core.errors import ConflictError, QualityGateError, ResourceError
from retrieval.core.objects import ObjectStore
from retrieval.core.publication import Publication
from retrieval.data.generator.generate import generate
from retrieval.stages.nightly import verbs
from retrieval.stages.nightly.night import run_night
from retrieval.stages.nightly.records import Nights
from retrieval.stages.nightly.request import Request
from retrieval.stages.nightly.shared import SharedNights
from retrieval.stages.recipe import read_recipe

FIRST, SECOND = ("--date", "2024-01-20"), ("--date", "2024-01-21")
FIRST_KILL, STEP = 270, 32
"""File operations of a night that finds everything made; giving it to the store takes more than a step."""
Night = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def stored(nightly: Path, object_server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The recipe of a log in a store, a copy of it for each day; and the URL where nights meet."""
    folder, bucket = tmp_path_factory.mktemp("stored"), object_server.bucket()
    generate(read_recipe(nightly).generate, folder / "log")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in object_server.environment.items():
            patch.setenv(name, value)
        for path in (each for each in (folder / "log").rglob("*") if each.is_file()):
            for _, date in (FIRST, SECOND):
                ObjectStore(bucket).upload(f"{date}/{path.relative_to(folder / 'log')}", path)
    recipe = re.sub(r"\[generate\][^[]*", "", nightly.read_text()).replace('"generated/', f'"{bucket}/{{date}}/')
    (folder / "small.toml").write_text(recipe, encoding="utf-8")
    return folder / "small.toml", f"{bucket}/nights"


@pytest.fixture(scope="module")
def night(command, stored: tuple[Path, str], object_server) -> Night:
    """night(verb, workspace, ...) with the store."""
    path, store = stored

    def call(verb: str, workspace: Path, *more: str, **given: object) -> subprocess.CompletedProcess[str]:
        words = (*more, "--store", store) if verb != "status" else more
        return command(verb, workspace, *words, of=path, **{**object_server.environment, **given})

    return call


@pytest.fixture(scope="module")
def look(stored: tuple[Path, str], object_server) -> Callable[[], tuple[int, int]]:
    """The version that the store's pointer names, 0 for none, and how many objects of artifacts there are."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in object_server.environment.items():
            patch.setenv(name, value)
        store = ObjectStore(stored[1])

    def looked() -> tuple[int, int]:
        pointer = store.read("published/small/current.json")
        names = [found.name for found in store.list("") if not found.name.startswith(("published/", "nights/"))]
        return json.loads(pointer[0])["version"] if pointer else 0, len(names)

    return looked


def published(workspace: Path) -> dict[str, str]:
    return {kind: each.id for kind, each in Publication(workspace, "small").current().artifacts.items()}


def record(done: subprocess.CompletedProcess[str]) -> dict:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def machines(
    command, night: Night, stored, object_server, look: Callable[[], tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Workspaces: `a` made the first night, `alone` went on from a copy of it without the store, `b` began with nothing and died often."""
    folder = tmp_path_factory.mktemp("machines")
    found = {name: folder / name for name in ("a", "b", "alone")}
    first = record(night("nightly", found["a"], *FIRST, "--json"))
    assert (first["run"], first["published"], look()[0]) == ("2024-01-20.001", 1, 1)
    shutil.copytree(found["a"], found["alone"])
    assert record(command("nightly", found["alone"], *SECOND, "--json", of=stored[0], **object_server.environment))["published"] == 2
    # A gate after everything else is made: from then on the night has only to be given to the store.
    held = night("nightly", found["b"], *SECOND, "--set", "nightly.lists.max_wait=1e-9")
    assert (held.returncode, "gate latency" in held.stderr) == (5, True), held.stderr
    before, states = look()[1], []
    for moment in range(FIRST_KILL, 2_000, STEP):
        done = night("nightly", found["b"], *SECOND, "--json", kill_at=moment)
        states.append((moment, look()[0], look()[1] - before))
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
    assert done.returncode == 0, done.stderr
    assert any(version == 1 and objects > 0 for _, version, objects in states), f"no kill in the middle of the push: {states}"
    print("after kills, version and objects in the store:", states)
    return found


def test_machines_with_empty_disks_do_what_one_with_a_disk_does(machines: dict[str, Path], contents, look) -> None:
    alone, b = machines["alone"], machines["b"]
    assert look()[0] == 2
    assert published(b) == published(alone)
    files, expected = contents(b), contents(alone)
    assert {name: digest for name, digest in files.items() if not name.endswith(".lock")}.items() <= expected.items()
    assert {f"{kind}/{made}" for kind, made in published(b).items()} <= {"/".join(Path(name).parts[:2]) for name in files}
    version = Publication(b, "small").current()
    # It went on from the other machine's model, and was judged against its lists and its day.
    assert version.about["training"]["said"] == "from version 1, 1 since anew"
    outcomes = {gate["name"]: gate["outcome"] for gate in version.about["gates"]}
    assert {outcomes[name] for name in ("volume", "drift", "recall", "coverage", "overlap", "latency")} == {"held"}


def test_a_rollback_is_everybodys(night: Night, machines: dict[str, Path], look, tmp_path: Path) -> None:
    b, other = machines["b"], tmp_path / "other"
    planned = record(night("nightly", other, *SECOND, "--dry-run", "--json"))
    assert (planned["pulled"], planned["published"], planned["rows"], other.exists()) == (2, 0, None, False)
    assert json.loads(night("rollback", other, "--why", "complaints", "--json").stdout)["number"] == 1
    assert look()[0] == 1
    held = night("nightly", b, *SECOND)
    assert (held.returncode, "gate rollback: version 2 was rolled back" in held.stderr) == (5, True)
    assert record(night("pull", other, "--json"))["number"] == 1
    said = record(night("status", other, "--json"))
    assert (said["last"]["status"], said["published"]["number"]) == ("held back", 1)
    assert record(night("retry", b, "--override", "rollback=it was right", "--json"))["published"] == 2
    assert look()[0] == 2


def test_a_store_that_refuses_at_the_end_costs_nothing(
    machines: dict[str, Path], stored: tuple[Path, str], object_server, look, monkeypatch: pytest.MonkeyPatch
) -> None:
    b, send = machines["b"], SharedNights.send
    for name, value in object_server.environment.items():
        monkeypatch.setenv(name, value)
    request = Request(stored[0], dt.date(2024, 1, 21), b, (f"nightly.store={stored[1]}", "evaluate.resamples=21"), again=True)

    def refused(self: SharedNights, artifacts: Collection[Artifact]) -> None:
        with object_server.refusing():
            send(self, artifacts)

    with monkeypatch.context() as patch, pytest.raises(ResourceError, match="403 Forbidden"):
        patch.setattr(SharedNights, "send", refused)
        run_night(request, {})
    assert (look()[0], Publication(b, "small").current().number) == (2, 2)

    def late(self: SharedNights, artifacts: Collection[Artifact]) -> None:
        """Another machine publishes first."""
        send(self, artifacts)
        verbs.rollback(machines["a"], request.recipe(), 1, "meanwhile")

    with monkeypatch.context() as patch, pytest.raises(ConflictError, match="another machine published meanwhile"):
        patch.setattr(SharedNights, "send", late)
        run_night(request, {})
    assert (look()[0], Publication(b, "small").current().number) == (1, 2)
    assert [run.exit_code for run in Nights(b, "small").all()][-2:] == [6, 7]
    with pytest.raises(QualityGateError, match="version 2 was rolled back"):
        run_night(request, {})
    ended = run_night(request, {"rollback": "it was right"})
    assert (ended.published, look()[0], Publication(b, "small").current().number) == (3, 3, 3)
    # Nothing is made again but the figures of what is published now.
    assert all(stage.skipped or stage.stage.startswith("published:") for stage in ended.stages)
    assert Publication(machines["a"], "small").current().number == 1
