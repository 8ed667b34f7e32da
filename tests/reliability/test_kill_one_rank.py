"""Several processes under torchrun: one of them is killed or told to stop, the same command ends with the same bytes."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# One process sends itself a signal at an exchange it comes to; they are counted from where this process begins.
STRUCK = """
import os, sys
exchange, victim, number, moment = sys.argv.pop(1), int(sys.argv.pop(1)), int(sys.argv.pop(1)), int(sys.argv.pop(1))
from retrieval.training.distributed import World
done, exchanged = 0, getattr(World, exchange)
def counted(self, *what):
    global done
    done += 1
    if self.rank == victim and done == moment:
        os.kill(os.getpid(), number)
    return exchanged(self, *what)
setattr(World, exchange, counted)
from retrieval.cli.main import main
main()
"""
STEP = "add_gradients"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
Launch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def launch(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Launch:
    """launch(verb, workspace, sharding, exchange, victim, signal, moment) in two processes; moment 0: nobody is struck."""
    script = tmp_path_factory.mktemp("script") / "struck.py"
    script.write_text(STRUCK, encoding="utf-8")

    def call(
        verb: str, workspace: Path, sharding: str, exchange: str = STEP, victim: int = 0, number: int = 0, moment: int = 0
    ) -> subprocess.CompletedProcess[str]:
        struck = [str(script), exchange, str(victim), str(number), str(moment)]
        started = [*TORCHRUN, "--standalone", "--nproc-per-node", "2", *struck, verb, str(recipe), "--workspace", str(workspace)]
        return subprocess.run([*started, *laid_out(sharding)], capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=900)

    return call


def laid_out(sharding: str) -> list[str]:
    """The settings of where the item table lies."""
    return ["--set", "train.optimizer.item_table=row-wise", "--set", f"train.sharding={sharding}"]


def model_of(workspace: Path) -> tuple[bytes, dict]:
    """The weights and the summary of the one model."""
    (folder,) = [path for path in (workspace / "model").iterdir() if path.is_dir()]
    return (folder / "model.safetensors").read_bytes(), json.loads((folder / "manifest.json").read_text())["summary"]


@pytest.fixture(scope="module")
def undisturbed(launch: Launch, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict]:
    """The model of replicas that nothing happens to."""
    workspace = shutil.copytree(prepared, tmp_path_factory.mktemp("whole") / "workspace")
    done = launch("train", workspace, "replicated")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1, "one process speaks"
    assert model_of(workspace)[1]["processes"] == 2
    return model_of(workspace)


def ends_as(expected: tuple[bytes, dict], launch: Launch, workspace: Path, sharding: str, step: int) -> None:
    """The command goes on from a step and ends with the expected model, and with nothing besides."""
    # Any verb that needs the model trains it in all processes.
    ended = launch("embed", workspace, sharding)
    assert ended.returncode == 0, ended.stderr
    assert f'"step": {step}, ' in ended.stderr
    weights, summary = expected
    assert model_of(workspace) == (weights, {**summary, "sharding": sharding})
    assert [path for path in [*workspace.rglob("*.part"), *workspace.rglob("step-*")] if path.is_dir()] == []


def test_what_one_process_suffers_costs_no_byte(launch: Launch, prepared: Path, undisturbed: tuple[bytes, dict], tmp_path: Path) -> None:
    workspace = shutil.copytree(prepared, tmp_path / "struck")
    killed = launch("train", workspace, "replicated", STEP, 1, signal.SIGKILL, 13)
    assert killed.returncode != 0
    assert not (workspace / "model").exists()
    assert "(SIGKILL)" in killed.stderr, "struck somewhere else"
    # From step 10 on: the signal comes in step 18 and is known to all in step 19, where no schedule would leave a checkpoint.
    stopped = launch("train", workspace, "replicated", STEP, 1, signal.SIGTERM, 8)
    assert stopped.returncode != 0
    assert "stopped by signal at step 19, checkpoint written" in stopped.stderr
    assert launch("train", workspace, "replicated", STEP, 0, signal.SIGKILL, 9).returncode != 0
    ends_as(undisturbed, launch, workspace, "replicated", 25)


def test_a_sharded_table_of_which_a_holder_dies_ends_with_the_bytes_of_replicas(
    launch: Launch, prepared: Path, undisturbed: tuple[bytes, dict], tmp_path: Path
) -> None:
    """Killed while it hands its rows over for the checkpoint of step 10: the one of step 5 took three of them, the best weights one."""
    workspace = shutil.copytree(prepared, tmp_path / "struck")
    killed = launch("train", workspace, "rows", "send", 1, signal.SIGKILL, 6)
    assert killed.returncode != 0
    assert not (workspace / "model").exists()
    assert list(workspace.rglob(".step-000000010-*")), "struck somewhere else"
    ends_as(undisturbed, launch, workspace, "rows", 5)


def test_two_machines_of_one_process_end_as_one_machine_of_two(
    recipe: Path, prepared: Path, undisturbed: tuple[bytes, dict], tmp_path: Path
) -> None:
    """Two launchers that meet at an address, each with a process that is the first of its machine; they share the workspace."""
    workspace = shutil.copytree(prepared, tmp_path / "machines")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = ["--nnodes", "2", "--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", str(free.getsockname()[1])]
    command = ["-m", "retrieval", "train", str(recipe), "--workspace", str(workspace), *laid_out("rows")]
    machines = [
        subprocess.Popen([*TORCHRUN, *meeting, "--node-rank", str(number), *command], stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
        for number in range(2)
    ]
    said = [machine.communicate(timeout=900)[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], "\n".join(said)
    weights, summary = undisturbed
    assert model_of(workspace) == (weights, {**summary, "sharding": "rows"})
