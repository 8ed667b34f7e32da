"""Work in progress belongs to a living process; what a dead one left behind goes."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from retrieval.core.artifacts import Workspace
from retrieval.core.errors import IntegrityError
from retrieval.core.staging import staging_folder

HOLD = """
import sys
from pathlib import Path
from retrieval.core.staging import staging_folder
with staging_folder(Path(sys.argv[1]), "dataset-abc", leftovers="") as folder:
    (folder / "half.parquet").write_text("half")
    print(folder, flush=True)
    sys.stdin.read()
"""


def held(parent: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process with a staging directory, and the directory."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(parent)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_the_directory_is_gone_after_the_block_unless_it_was_renamed(tmp_path: Path) -> None:
    with staging_folder(tmp_path, "a", leftovers="") as dropped:
        (dropped / "x").write_text("x")
    with staging_folder(tmp_path, "a", leftovers="") as kept:
        kept.rename(tmp_path / "kept")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_living_process_keeps_its_directory_and_a_killed_one_loses_it(tmp_path: Path) -> None:
    process, folder = held(tmp_path)
    with staging_folder(tmp_path, "dataset-abc", leftovers="") as other:
        assert other != folder
        assert (folder / "half.parquet").is_file()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert folder.is_dir()
    with staging_folder(tmp_path, "dataset-other", leftovers="model-"):
        assert folder.is_dir()
    with staging_folder(tmp_path, "dataset-abc", leftovers="dataset-"):
        assert not folder.exists()


def test_what_does_not_look_like_staging_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "model-abc").mkdir()
    (tmp_path / "model-abc.lock").write_text("")
    with staging_folder(tmp_path, "model-abc", leftovers=""):
        assert (tmp_path / "model-abc").is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {"model-abc", "model-abc.lock"}


def test_a_directory_in_the_place_of_an_artifact_is_told_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "model/abc").mkdir(parents=True)
    (tmp_path / "model/abc/notes.txt").write_text("mine")
    with (
        pytest.raises(IntegrityError, match="manifest is missing; delete the artifact"),
        Workspace(tmp_path).create("model", "abc", settings={}, inputs={}) as staged,
    ):
        staged.path("a").write_text("a")
    assert (tmp_path / "model/abc/notes.txt").read_text() == "mine"
    assert list((tmp_path / ".staging").iterdir()) == []
