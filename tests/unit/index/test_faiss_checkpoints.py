"""A build that was killed goes on from what it kept; shards that others did are taken; the bytes are the same."""

import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from retrieval.core.errors import UsageError
from retrieval.index.faiss import checkpoints, filling
from retrieval.index.faiss.build import assign_shard, build_faiss, make_coarse
from retrieval.index.settings import IndexSettings

VECTORS = np.random.default_rng(0).normal(size=(3000, 16)).astype(np.float32)
KINDS = ["IVF8,Flat", "IVF8,SQ8", "IVF8,RaBitQ,RFlat", "IVF8,PQ8x4fs,RFlat", "HNSW8", "PCAR8,HNSW8", "HNSW8_SQ8,RFlat", "Flat"]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(filling, "BLOCK", 500)
    monkeypatch.setattr(filling, "_LINKED", 500)


def settings_for(factory: str) -> IndexSettings:
    return IndexSettings(factory=factory, device="cpu", threads=1)


def contents(index, folder: Path) -> bytes:
    index.write(folder / "index")
    return (folder / "index").read_bytes()


def build_until(moment: int, factory: str, folder: Path) -> None:
    """Build, and die without warning at the n-th file that is opened or renamed in the folder."""
    import sys

    done = 0

    def hook(event, arguments):
        nonlocal done
        if event in {"open", "os.rename"} and str(folder) in str(arguments[0]):
            done += 1
            if done == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    build_faiss(VECTORS, settings_for(factory), folder)


@pytest.mark.parametrize("factory", KINDS)
@pytest.mark.parametrize("moment", [1, 2, 3, 6, 9])
def test_killed_at_any_file_it_goes_on_to_the_same_bytes(factory, moment, tmp_path):
    whole = contents(build_faiss(VECTORS, settings_for(factory)), tmp_path)
    folder = tmp_path / "scratch"
    folder.mkdir()
    process = multiprocessing.get_context("fork").Process(target=build_until, args=(moment, factory, folder))
    process.start()
    process.join(60)
    assert process.exitcode in (-signal.SIGKILL, 0)
    assert moment > 2 or process.exitcode == -signal.SIGKILL
    assert contents(build_faiss(VECTORS, settings_for(factory), folder), tmp_path) == whole


def test_what_is_kept_is_not_done_again(tmp_path, monkeypatch):
    build_faiss(VECTORS, settings_for("IVF8,SQ8"), tmp_path)
    monkeypatch.setattr(filling, "_nearest", lambda *_: pytest.fail("a block was assigned twice"))
    assert build_faiss(VECTORS, settings_for("IVF8,SQ8"), tmp_path).count == 3000


def test_of_a_graph_only_the_newest_state_is_kept(tmp_path):
    build_faiss(VECTORS, settings_for("HNSW8"), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["graph-000000002500.faiss", "trained.faiss"]


def test_a_checkpoint_that_did_not_fit_on_the_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        build_faiss(VECTORS, settings_for("IVF8,SQ8"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_shards_by_others_give_the_same_index(tmp_path, monkeypatch):
    settings, folder = settings_for("IVF8,SQ8"), tmp_path / "shared"
    folder.mkdir()
    whole = contents(build_faiss(VECTORS, settings), tmp_path)
    for shard in (2, 0, 1):
        assign_shard(VECTORS, settings, folder, (shard, 3))
    assert len(list(folder.glob("lists-*"))) == 6
    monkeypatch.setattr(filling, "_nearest", lambda *_: pytest.fail("a block was assigned twice"))
    assert contents(build_faiss(VECTORS, settings, folder), tmp_path) == whole


def test_a_graph_has_no_shards(tmp_path):
    with pytest.raises(UsageError, match="has no shards"):
        assign_shard(VECTORS, settings_for("HNSW8"), tmp_path, (0, 2))


@pytest.mark.parametrize("factory", ["IVF8,Flat", "IVF8,SQ8", "IVF8,PQ8x4fs,RFlat", "IVF8,RaBitQ,RFlat"])
def test_codes_share_the_lists_of_one_clustering_and_come_out_as_if_alone(factory, tmp_path):
    coarse = make_coarse(VECTORS, 8, settings_for("exact"))
    alone = contents(build_faiss(VECTORS, settings_for(factory)), tmp_path)
    assert contents(build_faiss(VECTORS, settings_for(factory), coarse=coarse), tmp_path) == alone


@pytest.mark.parametrize("factory", ["IVF8,SQ8", "HNSW8"])
def test_what_was_damaged_is_done_again(factory, tmp_path):
    whole, folder = contents(build_faiss(VECTORS, settings_for(factory)), tmp_path), tmp_path / "kept"
    folder.mkdir()
    build_faiss(VECTORS, settings_for(factory), folder)
    for path in folder.iterdir():
        kept = path.read_bytes()
        path.write_bytes(kept[: len(kept) // 2] + bytes([kept[len(kept) // 2] ^ 16]) + kept[len(kept) // 2 + 1 :])
    assert contents(build_faiss(VECTORS, settings_for(factory), folder), tmp_path) == whole
