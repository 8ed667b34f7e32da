"""A flipped bit or a missing end, in any file of any kind of artifact, is refused with the file, both hashes and what to do."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from retrieval.core.artifacts import open_artifact
from retrieval.core.errors import IntegrityError
from retrieval.core.publication import Publication

EVERY_MOMENT = bool(os.environ.get("RETRIEVAL_EVERY_MOMENT"))
DAMAGES = 10_000 if EVERY_MOMENT else 1_000
SETTINGS = (
    "--set",
    "recall.scores=isotonic",
    "--set",
    "index.factory=IVF4,Flat",
    "--set",
    "index.min_recall=0.0",
    "--set",
    "train.steps=10",
    "--set",
    "rescore.name=din",
    "--set",
    "rescore.examples=60",
    "--set",
    "rescore.training.steps=2",
    "--set",
    "rescore.training.validate_every=2",
)
GOLDEN = Path(__file__).parents[1] / "golden/artifacts"
KINDS = {"dataset", "model", "vectors", "export", "index", "calibration", "candidates", "measurements", "report", "rescorer", "folds"}


@pytest.fixture(scope="module")
def artifacts(command, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One of every kind."""
    workspace = tmp_path_factory.mktemp("whole")
    for verb, more in (("run", ()), ("embed", ("--export", str(workspace / "export/e")))):
        done = command(verb, workspace, *SETTINGS, *more)
        assert done.returncode == 0, done.stderr
    # Several runs in one: what they wrote is read like anything else.
    shutil.copytree(GOLDEN / "folds", workspace / "folds")
    found = [path.parent for path in workspace.glob("*/*/manifest.json")]
    assert {open_artifact(path).kind for path in found} == KINDS
    return found


def damaged(path: Path, draw: random.Random) -> str:
    """Flip a bit of a file, or cut its end off."""
    size = path.stat().st_size
    if draw.random() < 0.2:
        os.truncate(path, draw.randrange(size))
        return "cut short"
    place = draw.randrange(size)
    with path.open("r+b") as stream:
        stream.seek(place)
        value = stream.read(1)[0] ^ (1 << draw.randrange(8))
        stream.seek(place)
        stream.write(bytes([value]))
    return f"bit of byte {place} flipped"


def test_no_damage_passes(artifacts: list[Path], tmp_path: Path) -> None:
    draw, work = random.Random(2026), tmp_path / "artifact"
    # Every file of every kind, again and again: a kind of few bytes is damaged as often as one of many.
    files = [(folder, path.relative_to(folder)) for folder in artifacts for path in folder.rglob("*") if path.is_file()]
    for folder in artifacts:
        shutil.copytree(folder, work / folder.parent.name / folder.name)
    silent = []
    for number in range(DAMAGES):
        folder, name = files[number % len(files)]
        copy = work / folder.parent.name / folder.name
        if (folder / name).stat().st_size == 0:
            continue
        what = damaged(copy / name, draw)
        try:
            open_artifact(copy).verify()
            silent.append((str(name), what))
        except IntegrityError as error:
            said = str(error)
            assert str(copy / name) in said, said
            assert "delete the artifact's directory and run again" in said
            if name.name != "manifest.json":
                assert re.search(r"bytes with sha256 [0-9a-f]{12}; expected \d+ bytes with sha256 [0-9a-f]{12}", said), said
        shutil.copyfile(folder / name, copy / name)
    assert silent == []


def test_every_reader_asks_for_the_file_before_it_parses(artifacts: list[Path], command, tmp_path: Path) -> None:
    """The command on a workspace with one damaged file: exit code 4, and nothing made of it."""
    folders = {open_artifact(path).kind: path for path in artifacts}
    for kind, name in (
        ("dataset", "items.npy"),
        ("model", "model.safetensors"),
        ("index", "index.faiss"),
        ("candidates", "part-00000.parquet"),
    ):
        workspace = Path(shutil.copytree(folders["dataset"].parent.parent, tmp_path / kind))
        copy = workspace / kind / folders[kind].name / name
        whole = copy.read_bytes()
        copy.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        shutil.rmtree(workspace / "report")
        done = command("report", workspace, *SETTINGS)
        assert done.returncode == 4, (kind, done.stderr)
        assert f"{name}: is damaged" in done.stderr
        assert not (workspace / "report").exists()


HOSTILE = """
import sys
from pathlib import Path
import numpy as np
from retrieval.core.errors import IntegrityError
from retrieval.index.settings import IndexSettings
from retrieval.index.table import read_index
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        index = read_index(path, IndexSettings(threads=1), count=int(sys.argv[2]), dimension=int(sys.argv[3]))
        index.search(np.ones((2, int(sys.argv[3])), np.float32), 5)
        print("outcome", path.name, "read", flush=True)
    except IntegrityError:
        print("outcome", path.name, "refused", flush=True)
"""


def test_hostile_index_files_are_read_in_a_child_and_kill_nobody_else(artifacts: list[Path], tmp_path: Path) -> None:
    """Past the hash, as if somebody had signed them: the format's own checks refuse what they can, and what they cannot dies alone."""
    (folder,) = [path for path in artifacts if open_artifact(path).kind == "index"]
    summary, whole = open_artifact(folder).summary, (folder / "index.faiss").read_bytes()
    draw, count = random.Random(5), 300 if EVERY_MOMENT else 30
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    for number in range(count):
        # The head of the file is where types, sizes and counts stand.
        place = draw.randrange(4, min(200, len(whole)))
        (hostile / f"{number:04d}").write_bytes(whole[:place] + draw.randbytes(8) + whole[place + 8 :])
    for name, head in {"another": b"Junk", "map": b"IxMp", "binary": b"IBxF"}.items():
        (hostile / name).write_bytes(head + whole[4:])
    words = [str(hostile), str(summary["count"]), str(summary["dimension"])]
    left, outcomes, crashes = count + 3, {}, 0
    while left:
        child = subprocess.run([sys.executable, "-c", HOSTILE, *words], capture_output=True, text=True, check=False, timeout=300)
        found = dict(line.split()[1:] for line in child.stdout.splitlines() if line.startswith("outcome "))
        outcomes |= found
        if child.returncode:
            crashes += 1
            victim = min(path for path in hostile.iterdir() if path.name not in outcomes)
            outcomes[victim.name] = "crashed"
        for name in list(outcomes):
            (hostile / name).unlink(missing_ok=True)
        left = len(list(hostile.iterdir()))
    assert {outcomes[name] for name in ("another", "map", "binary")} == {"refused"}
    assert list(outcomes.values()).count("refused") > count // 3
    print(f"{count} hostile heads: {json.dumps({what: list(outcomes.values()).count(what) for what in sorted(set(outcomes.values()))})}")


def test_a_published_version_answers_for_every_byte(artifacts: list[Path], tmp_path: Path) -> None:
    """A manifest and its files exchanged for others, seals and all: the pointer's chain of hashes tells."""
    root = artifacts[0].parent.parent
    publication = Publication(root, "chain")
    opened = {artifact.kind: artifact for artifact in map(open_artifact, artifacts) if artifact.kind != "export"}
    publication.publish("2024-01-01", opened, {}, instead_of=0, why="test")
    version = publication.current()
    assert {publication.artifact(version, kind).id for kind in opened} == {artifact.id for artifact in opened.values()}
    manifest = opened["vectors"].path / "manifest.json"
    before = manifest.read_bytes()
    manifest.write_bytes(opened["model"].path.joinpath("manifest.json").read_bytes())
    with pytest.raises(IntegrityError, match="is not what was published"):
        publication.artifact(version, "vectors")
    manifest.write_bytes(before)
