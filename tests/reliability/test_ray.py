"""Lists made over Ray are those of one process, byte for byte; so they are when a node dies with all of its processes."""

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray is not installed: pip install 'multi-interest-retrieval[ray]'", allow_module_level=True)

ROOT = Path(__file__).parents[2]
from retrieval.core.artifacts import open_artifact

sys.path.insert(0, str(Path(__file__).parent))
from ray_cluster import tree

SHARDS = 6
SETTINGS = ("--set", "recall.batch_users=16", "--set", f"machine.ray.shards={SHARDS}")
TOKEN = "0123456789abcdef" * 4
PLAIN = {
    **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
    "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    "OMP_WAIT_POLICY": "PASSIVE",
}
ENVIRONMENT = {
    **PLAIN,
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": TOKEN,
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


class Nodes:
    """The simulated cluster, in a process of its own."""

    def __init__(self) -> None:
        words = [sys.executable, str(ROOT / "tests/reliability/ray_cluster.py")]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
        self.address = self._said()["address"]

    def kill_one(self) -> dict:
        self._process.stdin.write("kill\n")
        self._process.stdin.flush()
        return self._said()

    def stop(self) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(60)

    def _said(self) -> dict:
        return next(json.loads(line) for line in self._process.stdout if line.startswith("{"))


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    found = Nodes()
    yield found
    found.stop()


@pytest.fixture(scope="module")
def whole(command, contents, indexed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What one process writes."""
    workspace = Path(shutil.copytree(indexed, tmp_path_factory.mktemp("whole") / "w"))
    done = command("recall", workspace, *SETTINGS)
    assert done.returncode == 0, done.stderr
    return contents(workspace)


def recalling(recipe: Path, workspace: Path, address: str, *more: str, environment=ENVIRONMENT) -> subprocess.Popen[str]:
    return started("recall", recipe, workspace, "--set", f"machine.ray.address={address}", *more, environment=environment)


def started(verb: str, recipe: Path, workspace: Path, *more: str, environment=ENVIRONMENT) -> subprocess.Popen[str]:
    words = [verb, str(recipe), "--workspace", str(workspace), "--engine", "ray", *SETTINGS, *more]
    return subprocess.Popen(
        [sys.executable, "-m", "retrieval", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=ROOT,
    )


def test_vectors_of_users_are_exported_by_tasks(command, recipe: Path, nodes: Nodes, indexed: Path, tmp_path: Path) -> None:
    done = command("embed", indexed, "--export", str(tmp_path / "whole/e"), *SETTINGS)
    assert done.returncode == 0, done.stderr
    address = ("--set", f"machine.ray.address={nodes.address}")
    _, said = (process := started("embed", recipe, indexed, "--export", str(tmp_path / "ray/e"), *address)).communicate(timeout=300)
    assert process.returncode == 0, said
    assert said.count("shard done") == 1
    exports = [open_artifact(tmp_path / place / "e") for place in ("whole", "ray")]
    assert exports[0].manifest.files == exports[1].manifest.files
    assert [each.id for each in exports] == [exports[0].id] * 2
    assert not (tmp_path / "ray/.staging").exists()


@pytest.mark.parametrize("in_flight", [1, 2, 4])
def test_the_same_bytes_whatever_is_in_flight(
    recipe: Path, nodes: Nodes, contents, indexed: Path, whole, tmp_path: Path, in_flight: int
) -> None:
    workspace = Path(shutil.copytree(indexed, tmp_path / "w"))
    process = recalling(recipe, workspace, nodes.address, "--set", f"machine.ray.in_flight={in_flight}")
    out, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert contents(workspace) == whole
    assert said.count("shard done") == SHARDS
    # The shards are gone, and so is what they were made in.
    assert [path.name for path in (workspace / "candidates").iterdir()] == [Path(out.strip()).name]
    assert [path for path in (workspace / ".staging").iterdir() if path.is_dir()] == []


def test_a_client_without_the_token_is_turned_away_in_one_line(recipe: Path, nodes: Nodes, indexed: Path, tmp_path: Path) -> None:
    workspace = Path(shutil.copytree(indexed, tmp_path / "w"))
    process = recalling(recipe, workspace, nodes.address, environment={**ENVIRONMENT, "RAY_AUTH_TOKEN": "f" * 64})
    _, said = process.communicate(timeout=300)
    assert process.returncode == 6, said
    assert "no Ray cluster" in said.splitlines()[-1]
    assert TOKEN not in said
    assert not list((workspace / "candidates").glob("*"))


def test_time_that_is_up_keeps_what_is_finished(recipe: Path, nodes: Nodes, contents, indexed: Path, whole, tmp_path: Path) -> None:
    workspace = Path(shutil.copytree(indexed, tmp_path / "w"))
    process = recalling(recipe, workspace, nodes.address, "--set", "machine.ray.hours=0.0001")
    _, said = process.communicate(timeout=300)
    assert process.returncode == 6, said
    assert "run the same command again" in said.splitlines()[-1]
    finished = len(list((workspace / "candidates").glob("[0-9a-f]*")))
    process = recalling(recipe, workspace, nodes.address)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    # Tasks of the first run may have ended after it was counted.
    assert said.count("shard done") <= SHARDS - finished
    assert contents(workspace) == whole


def test_a_cluster_of_its_own_listens_on_loopback_alone(recipe: Path, contents, indexed: Path, whole, tmp_path: Path) -> None:
    workspace = Path(shutil.copytree(indexed, tmp_path / "w"))
    process = recalling(recipe, workspace, "", "--set", "machine.ray.in_flight=2", environment=PLAIN)
    heard = set()
    while process.poll() is None:
        heard |= listening(process.pid)
        time.sleep(0.2)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert contents(workspace) == whole
    assert heard, "nothing was seen to listen"
    assert {each for each in heard if set(each) == {"0"}} == set()


def listening(pid: int) -> set[str]:
    """Addresses, in hex, at which a process or one below it listens; zeros alone are all interfaces."""
    sockets = set()
    for each in tree(pid):
        with contextlib.suppress(OSError):
            sockets |= {str(link.readlink()).strip("socket:[]") for link in Path(f"/proc/{each}/fd").iterdir()}
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {line[1].partition(":")[0] for line in lines if line[3] == "0A" and line[9] in sockets}


def test_a_node_that_dies_costs_no_row(recipe: Path, nodes: Nodes, contents, indexed: Path, whole, tmp_path: Path) -> None:
    workspace = Path(shutil.copytree(indexed, tmp_path / "w"))
    process = recalling(recipe, workspace, nodes.address)
    staging, deadline = workspace / ".staging", time.monotonic() + 200
    # Its own and those of two shards: one a node.
    while len(list(staging.glob("candidates-*.part"))) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    died = nodes.kill_one()
    _, said = process.communicate(timeout=400)
    assert process.returncode == 0, said
    assert died["tasks"], died
    assert contents(workspace) == whole
    assert not list(staging.glob("*.part"))
