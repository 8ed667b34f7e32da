"""A disk that fills up in the middle of any one stage: exit code 6 in one line, nothing half-written, nothing published; with room again
the same command ends with the bytes of an undisturbed run.

The disk is a file system in memory; where none may be mounted, no file may grow beyond half of the stage's largest one.
"""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from retrieval.core.artifacts import open_artifact
from retrieval.core.publication import Publication

VALUES = (
    "train.steps=10",
    "index.factory=IVF4,Flat",
    "index.min_recall=0.0",
    "rescore.name=din",
    "rescore.examples=60",
    "rescore.training.steps=2",
    "rescore.training.validate_every=2",
    "evaluate.frontier_users=20",
    "split.protocol=global-time",
    "data.filters.before=2024-01-31T00:00:00Z",
    "nightly.report=false",
    "nightly.model.max_cosine=1.0",
    "nightly.model.min_effective_rank=0",
    "nightly.model.max_dead=1.0",
    "nightly.model.min_ann_recall=0",
    "nightly.model.min_primary=1.0",
)
SETTINGS = tuple(word for value in VALUES for word in ("--set", value))
STAGES = {
    "dataset": "prepare",
    "model": "train",
    "vectors": "embed",
    "index": "build-index",
    "rescorer": "recall",
    "candidates": "recall",
    "measurements": "evaluate",
    "report": "report",
}
"""Kind -> the verb that ends with it, or, for a re-scorer, makes it on its way."""
AMPLE = 64 << 20


class Disk:
    """A file system of a size that changes; without one (`mounted` False), a limit on the size of files."""

    def __init__(self, place: Path) -> None:
        place.mkdir()
        self.place, self.mounted = place, self._mount("-t", "tmpfs", "-o", f"size={AMPLE}", "tmpfs", str(place))

    def with_room(self, room: int, largest: int) -> dict[str, Any]:
        """From now on so many bytes can be written more, or files of less than the largest; what to tell the command."""
        return {} if self.resize(shutil.disk_usage(self.place).used + room) else {"file_bytes": largest // 2}

    def resize(self, size: int) -> bool:
        return self.mounted and self._mount("-o", f"remount,size={size}", str(self.place))

    def _mount(self, *words: str) -> bool:
        return subprocess.run(["mount", *words], capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    found = Disk(tmp_path / "disk")
    yield found
    if found.mounted:
        subprocess.run(["umount", str(found.place)], check=True)


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which every stage is done."""
    workspace = tmp_path_factory.mktemp("whole") / "w"
    for verb in ("run", "recall"):
        done = command(verb, workspace, *SETTINGS)
        assert done.returncode == 0, done.stderr
    return workspace


def sizes_in(folder: Path) -> list[int]:
    return [path.stat().st_size for path in folder.rglob("*") if path.is_file()]


def before(whole: Path, kind: str, place: Path) -> Path:
    """The workspace as it was before a stage."""
    workspace = Path(shutil.copytree(whole, place / "w"))
    for later in list(STAGES)[list(STAGES).index(kind) :]:
        shutil.rmtree(workspace / later)
    return workspace


def require_one_line_of_a_full_disk(ended: subprocess.CompletedProcess[str]) -> None:
    said = [line for line in ended.stderr.splitlines() if line.startswith("error:")]
    assert (ended.returncode, len(said)) == (6, 1), ended.stderr
    assert "the disk is full" in said[0] or "MB free" in said[0]
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("kind", STAGES)
def test_a_disk_that_is_full_in_the_middle_of_a_stage(command, contents, whole: Path, disk: Disk, kind: str) -> None:
    # Of several of a kind the smallest is the one that the verb makes: everybody's lists have no pools.
    sizes = min((sizes_in(folder) for folder in (whole / kind).iterdir()), key=sum)
    workspace = before(whole, kind, disk.place)
    limit = disk.with_room(sum(sizes) // 2, max(sizes))
    require_one_line_of_a_full_disk(command(STAGES[kind], workspace, *SETTINGS, **limit))
    assert [*workspace.glob(f"{kind}/*"), *workspace.rglob("*.part")] == []
    disk.resize(AMPLE)
    done = command(STAGES[kind], workspace, *SETTINGS)
    assert done.returncode == 0, done.stderr
    (folder,) = (workspace / kind).iterdir()
    open_artifact(folder).verify()
    made, expected = (of_stage(contents(each), folder.relative_to(workspace)) for each in (workspace, whole))
    assert made == expected
    assert made or kind == "report"


def of_stage(files: dict[str, str], folder: Path) -> dict[str, str]:
    """The files of an artifact, but what was timed: what re-scoring costs, and a report."""
    return {name: digest for name, digest in files.items() if name.startswith(str(folder)) and not name.endswith("rescoring.json")}


def test_a_disk_that_is_full_while_a_night_is_published(command, whole: Path, disk: Disk) -> None:
    """A night that a gate holds back needs but to be published: a few kilobytes, any of which may be the one too many."""
    workspace = Path(shutil.copytree(whole, disk.place / "w"))
    held = command("nightly", workspace, "--date", "2024-01-30", *SETTINGS)
    assert held.returncode == 5, held.stderr
    undisturbed = Path(shutil.copytree(workspace, disk.place / "undisturbed"))
    publish = ("publish", "--override", "primary=as planted")
    assert command(publish[0], undisturbed, *publish[1:]).returncode == 0
    expected = ids(undisturbed)
    shutil.rmtree(undisturbed)
    stopped = []
    for room in (0, 4096, 8192, 16_384):
        limit = disk.with_room(room, 400)
        ended = command(publish[0], workspace, *publish[1:], **limit)
        if ended.returncode == 0:
            break
        require_one_line_of_a_full_disk(ended)
        assert Publication(workspace, "small").current() is None
        stopped.append(room)
    assert len(stopped) >= 2
    disk.resize(AMPLE)
    done = command(publish[0], workspace, *publish[1:])
    assert done.returncode == 0, done.stderr
    assert ids(workspace) == expected


def ids(workspace: Path) -> dict[str, str]:
    """Kind -> id of what is published."""
    return {kind: each.id for kind, each in Publication(workspace, "small").current().artifacts.items()}
