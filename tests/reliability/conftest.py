"""A small recipe that generates its own log, and the command as a process that may be killed."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
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
[evaluate]
baselines = []
resamples = 20
[machine]
threads = 1
"""
# Counts what the process does to files under a folder, and kills it without warning at the given count.
KILLED = """
import os, signal, sys
folder, moment, done = sys.argv.pop(1), int(sys.argv.pop(1)), 0
def hook(event, arguments):
    global done
    if event in {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"} and folder in str(arguments[0]):
        done += 1
        if done == moment:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
from retrieval.cli.main import _run
code = _run(sys.argv[1:])
print("file operations:", done, file=sys.stderr)
sys.exit(code)
"""
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "small.toml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def command(recipe: Path) -> Command:
    """command(verb, workspace, kill_at=n) runs a verb of the recipe; n counts file operations in the workspace, 0: never."""

    def call(verb: str, workspace: Path, *more: str, kill_at: int = 0) -> subprocess.CompletedProcess[str]:
        start = [sys.executable, "-c", KILLED, str(workspace), str(kill_at)]
        return subprocess.run(
            [*start, verb, str(recipe), "--workspace", str(workspace), *more],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
            check=False,
            timeout=600,
        )

    return call


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, str]]:
    """contents(workspace) is the sha256 of every file of its artifacts and its log; reports and manifests tell the time."""

    def read(workspace: Path) -> dict[str, str]:
        files = [path for path in workspace.rglob("*") if path.is_file() and path.name != "manifest.json"]
        names = {str(path.relative_to(workspace)): path for path in files}
        kept = {name: path for name, path in names.items() if not name.startswith((".staging/", "report/"))}
        return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in kept.items()}

    return read
