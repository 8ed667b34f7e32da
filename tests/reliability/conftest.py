"""A small recipe that generates its own log, the command as a process that may be killed, and a server that speaks S3."""

import hashlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPE = """
name = "small"
[generate]
users = 150
items = 150
days = 30
[data]
name = "small"
interactions = { path = "generated/interactions" }
items = { path = "generated/items.parquet", title = "title", categories = "categories" }
[model]
name = "comirec-sa"
dimension = 16
interests = 3
history = 20
dropout = 0.1
[train]
steps = 40
examples = { batch_size = 8 }
validate_every = 10
checkpoint_every = 5
loss = { negatives = 32 }
[recall]
n = 50
[report]
map_items = 50
[evaluate]
frontier_builders = ["category_greedy"]
baselines = []
resamples = 20
[machine]
threads = 1
"""
NIGHTLY = """
[split]
protocol = "global-time"
[index]
factory = "IVF4,Flat"
[nightly]
report = false
[nightly.model]
max_loss = 1.0
max_decline = 1.0
max_cosine = 1.0
min_effective_rank = 0.0
max_dead = 1.0
min_ann_recall = 0.0
[nightly.data]
volume = [0.0, 100.0]
max_drift = 1.0
[nightly.lists]
max_slowdown = 1000.0
overlap = [0.0, 1.0]
"""
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "small.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def nightly(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small recipe with gates that chance cannot fail."""
    path = tmp_path_factory.mktemp("nightly") / "small.toml"
    small = recipe.read_text().replace("steps = 40", "steps = 12").replace("[recall]", "[recall]\nbatch_users = 16")
    path.write_text(small + NIGHTLY, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def command(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """command(verb, workspace, kill_at=n) runs a verb of the recipe; n counts file operations in the workspace, 0: never.

    of: another recipe. file_bytes: no file may grow beyond, as on a disk that is full. names: variables of the environment.
    """
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    said = tmp_path_factory.mktemp("said")
    server = [sys.executable, str(ROOT / "tests/e2e/warm_command_line.py")]
    with subprocess.Popen(server, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as warm:

        def call(
            verb: str,
            workspace: Path,
            *more: str,
            kill_at: int = 0,
            of: Path | None = None,
            file_bytes: int = 0,
            debug: bool = False,
            **names: str,
        ) -> subprocess.CompletedProcess[str]:
            words = [*(["--debug"] if debug else []), verb, str(of or recipe), "--workspace", str(workspace), *more]
            files = {"out": str(said / "out"), "err": str(said / "err")}
            limits = {"watched": str(workspace), "moment": kill_at, "file_bytes": file_bytes}
            request = {"arguments": words, "environment": {**environment, **names}, "folder": str(ROOT), **files, **limits}
            warm.stdin.write(json.dumps(request) + "\n")
            warm.stdin.flush()
            code = int(warm.stdout.readline())
            return subprocess.CompletedProcess(words, code, *((said / name).read_text(encoding="utf-8") for name in ("out", "err")))

        yield call
        warm.stdin.close()


@pytest.fixture(scope="module")
def prepared(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the dataset, so that only training is left."""
    return _up_to("prepare", command, tmp_path_factory)


@pytest.fixture(scope="module")
def indexed(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace up to the index."""
    return _up_to("build-index", command, tmp_path_factory)


def _up_to(verb: str, command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tmp_path_factory.mktemp(verb)
    done = command(verb, workspace)
    assert done.returncode == 0, done.stderr
    return workspace


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, str]]:
    """contents(workspace) is the sha256 of every file of its artifacts and its log; reports, manifests and records tell the time."""

    def read(workspace: Path) -> dict[str, str]:
        files = [path for path in workspace.rglob("*") if path.is_file() and path.name != "manifest.json"]
        names = {str(path.relative_to(workspace)): path for path in files}
        told = (".staging/", "report/", "nights/", "published/")
        kept = {name: path for name, path in names.items() if not name.startswith(told)}
        return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in kept.items()}

    return read


class ObjectServer:
    """A server that speaks S3, in a process of its own; `environment` is what its clients read."""

    key, secret = "AKIAPLANTEDKEY123", "plantedplantedplanted"

    def __init__(self, url: str) -> None:
        names = {"ACCESS_KEY_ID": self.key, "SECRET_ACCESS_KEY": self.secret, "ENDPOINT_URL": url, "REGION": "us-east-1"}
        self.url, self.environment = url, {f"AWS_{name}": value for name, value in {**names, "ALLOW_HTTP": "true"}.items()}

    def bucket(self) -> str:
        """The URL of a new one."""
        name = f"bucket-{os.urandom(6).hex()}"
        self.ask(f"/{name}", "PUT")
        return f"s3://{name}"

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """It knows nobody's keys meanwhile."""
        self.ask("/moto-api/reset-auth", "POST", b"0")
        try:
            yield
        finally:
            self.ask("/moto-api/reset-auth", "POST", b"inf")

    def ask(self, path: str, method: str = "GET", body: bytes | None = None) -> None:
        request = urllib.request.Request(self.url + path, data=body, headers={"Content-Type": "text/plain"}, method=method)
        urllib.request.urlopen(request, timeout=30).close()

    def wait(self, seconds: float) -> None:
        """Until it answers."""
        end = time.monotonic() + seconds
        while True:
            try:
                return self.ask("/")
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)


@pytest.fixture(scope="session")
def object_server() -> Iterator[ObjectServer]:
    for library in ("obstore", "moto", "flask"):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed: it is one of requirements.lock")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        server = ObjectServer(f"http://127.0.0.1:{port}")
        server.wait(60)
        yield server
    finally:
        process.kill()
        process.wait(20)


@pytest.fixture
def bucket(object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new bucket; this process is a client of the server."""
    for name, value in object_server.environment.items():
        monkeypatch.setenv(name, value)
    return object_server.bucket()
