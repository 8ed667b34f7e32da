"""Several processes under torchrun: one of them is killed or told to stop, the same command ends with the same bytes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# One process sends itself a signal at a step it comes to; the steps are counted from where this process begins.
STRUCK = """
import os, sys
victim, number, moment, done = int(sys.argv.pop(1)), int(sys.argv.pop(1)), int(sys.argv.pop(1)), 0
from retrieval.training.distributed import World
def counted(self, parameters, add=World.add_gradients):
    global done
    done += 1
    if self.rank == victim and done == moment:
        os.kill(os.getpid(), number)
    add(self, parameters)
World.add_gradients = counted
from retrieval.cli.main import main
main()
"""
Launch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def launch(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Launch:
    """launch(verb, workspace, victim, signal, step) in two processes; step 0: nobody is struck."""
    script = tmp_path_factory.mktemp("script") / "struck.py"
    script.write_text(STRUCK, encoding="utf-8")

    def call(verb: str, workspace: Path, victim: int = 0, number: int = 0, step: int = 0) -> subprocess.CompletedProcess[str]:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        return subprocess.run(
            [*torchrun, str(script), str(victim), str(number), str(step), verb, str(recipe), "--workspace", str(workspace)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            check=False,
            timeout=900,
        )

    return call


def model_of(workspace: Path) -> tuple[bytes, dict]:
    """The weights and the summary of the one model."""
    (folder,) = [path for path in (workspace / "model").iterdir() if path.is_dir()]
    return (folder / "model.safetensors").read_bytes(), json.loads((folder / "manifest.json").read_text())["summary"]


def test_what_one_process_suffers_costs_no_byte(command, launch: Launch, tmp_path: Path) -> None:
    prepared = tmp_path / "prepared"
    assert command("prepare", prepared).returncode == 0
    whole = shutil.copytree(prepared, tmp_path / "whole")
    done = launch("train", whole)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1, "one process speaks"
    expected, summary = model_of(whole)
    assert summary["processes"] == 2

    workspace = shutil.copytree(prepared, tmp_path / "struck")
    killed = launch("train", workspace, 1, signal.SIGKILL, 13)
    assert killed.returncode != 0
    assert not (workspace / "model").exists()
    assert "another process is gone" in killed.stderr
    # From step 10 on: the signal comes in step 18 and is known to all in step 19, where no schedule would leave a checkpoint.
    stopped = launch("train", workspace, 1, signal.SIGTERM, 8)
    assert stopped.returncode != 0
    assert "stopped by signal at step 19, checkpoint written" in stopped.stderr
    assert launch("train", workspace, 0, signal.SIGKILL, 9).returncode != 0
    # Any verb that needs the model trains it in all processes.
    ended = launch("embed", workspace)
    assert ended.returncode == 0, ended.stderr
    assert "step=25" in ended.stderr
    assert model_of(workspace) == (expected, summary)
    assert [path for path in [*workspace.rglob("*.part"), *workspace.rglob("step-*")] if path.is_dir()] == []
