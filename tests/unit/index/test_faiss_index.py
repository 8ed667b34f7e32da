"""What is particular to FAISS: factory strings, tuning, sampling, GPUs, files and the library itself."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from retrieval.core.errors import IntegrityError, ResourceError, UsageError
from retrieval.index.faiss import build, devices
from retrieval.index.faiss.build import build_faiss, read_faiss
from retrieval.index.faiss.library import faiss_library
from retrieval.index.settings import IndexSettings
from retrieval.index.table import build_index, read_index

FOOTER = 32
VECTORS = np.random.default_rng(0).normal(size=(600, 16)).astype(np.float32)


def settings_for(factory: str, **changes) -> IndexSettings:
    return IndexSettings(factory=factory, **{"device": "cpu", "threads": 1, **changes})


@pytest.mark.parametrize(
    "factory",
    ["Flatt", "flat", "Exact", "IVF16", "PQ7", "LSH", "IVF-3,Flat", "IVF99999999999999,Flat", "IVF16,Flat,Nothing", "IDMap,Flat", " "],
)
def test_an_unknown_factory_string_is_a_usage_error_of_one_line(factory):
    with pytest.raises(UsageError, match="cannot be built for 16 dimensions") as caught:
        build_index(VECTORS, settings_for(factory))
    assert factory in caught.value.what
    assert "try Flat" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "/project/" not in str(caught.value)


@pytest.mark.parametrize(("factory", "threads"), [("IVF600_HNSW8,Flat", 1), ("HNSW8", 1), ("OPQ4,IVF8,PQ4", 1), ("IVF8,SQ8", 3)])
def test_graphs_are_linked_by_one_thread_wherever_they_stand(factory, threads):
    settings = settings_for(factory, threads=3)
    assert build._build_threads(faiss_library(), build.make_empty(faiss_library(), 16, settings), settings) == threads


def test_the_threads_of_a_search_change_no_bit_of_it():
    # Queries in blocks of other sizes differ in the last bits, which is seen in many of them only.
    random = np.random.default_rng(1)
    items, queries = random.normal(size=(2048, 64)).astype(np.float32), random.normal(size=(1000, 64)).astype(np.float32)
    hits = [build_faiss(items, settings_for("Flat", threads=threads)).search(queries, 8) for threads in (1, 2, 3)]
    assert hits[0].scores.tobytes() == hits[1].scores.tobytes() == hits[2].scores.tobytes()
    assert hits[0].rows.tobytes() == hits[1].rows.tobytes() == hits[2].rows.tobytes()


@pytest.mark.parametrize("factory", ["IVF0,Flat", "HNSW0", "HNSW1", "HNSW01,Flat", "NSG0", "PQ0", "PQ4x0", "IVF16_HNSW0,Flat"])
def test_counts_that_would_abort_the_process_are_refused(factory):
    with pytest.raises(UsageError, match="too small"):
        build_index(VECTORS, settings_for(factory))


@pytest.mark.parametrize("factory", ["IVF10,Flat", "HNSW10", "PCA8,Flat", "IVF4,PQ4x4fs,RFlat"])
def test_counts_that_only_hold_a_zero_or_one_are_fine(factory):
    assert build_index(VECTORS, settings_for(factory)).search(VECTORS[:2], 5).rows.shape == (2, 5)


@pytest.mark.parametrize(("factory", "sample"), [("IVF601,Flat", 0), ("IVF64,Flat", 63)])
def test_what_cannot_be_trained_or_filled_is_a_usage_error(factory, sample):
    with pytest.raises(UsageError, match="cannot be trained on") as caught:
        build_index(VECTORS, settings_for(factory, train_sample=sample))
    assert str(min(600, sample or 600)) in caught.value.what


def test_more_probes_find_more_and_all_of_them_find_everything():
    exact = build_index(VECTORS, settings_for("exact")).search(VECTORS[:50], 10).rows.tolist()
    shares = []
    for nprobe in (1, 4, 1000):
        found = build_index(VECTORS, settings_for("IVF16,Flat", nprobe=nprobe)).search(VECTORS[:50], 10).rows.tolist()
        shares.append(np.mean([len(set(a) & set(b)) for a, b in zip(exact, found, strict=True)]) / 10)
    assert shares[0] < shares[1] < shares[2] == 1.0


@pytest.mark.parametrize("factory", ["HNSW4", "PCAR16,HNSW4"])
def test_a_longer_queue_of_a_graph_finds_more(factory):
    vectors = np.random.default_rng(1).normal(size=(3000, 16)).astype(np.float32)
    exact = build_index(vectors, settings_for("exact")).search(vectors[:50], 10).rows.tolist()
    shares = []
    for ef_search in (1, 512):
        found = build_index(vectors, settings_for(factory, ef_search=ef_search)).search(vectors[:50], 10).rows.tolist()
        shares.append(np.mean([len(set(a) & set(b)) for a, b in zip(exact, found, strict=True)]) / 10)
    assert shares[0] + 0.05 < shares[1]


def test_an_index_is_tuned_by_the_settings_it_is_read_with(tmp_path):
    path = tmp_path / "index.faiss"
    build_index(VECTORS, settings_for("IVF16,Flat", nprobe=1)).write(path)
    one, all_of_them = (
        read_index(path, settings_for("IVF16,Flat", nprobe=nprobe), count=600, dimension=16).search(VECTORS[:50], 10).scores
        for nprobe in (1, 16)
    )
    assert (one.sum(axis=1) <= all_of_them.sum(axis=1)).all()
    assert one.sum() < all_of_them.sum()


def test_training_looks_at_a_seeded_sample(tmp_path):
    contents = []
    for number, sample in enumerate((200, 200, 0)):
        build_index(VECTORS, settings_for("IVF4,Flat", train_sample=sample)).write(tmp_path / str(number))
        contents.append((tmp_path / str(number)).read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_an_index_that_no_gpu_takes_stays_on_the_cpu_under_auto_and_fails_under_gpu(monkeypatch):
    class Library:
        downcast_index = staticmethod(lambda index: index)
        StandardGpuResources = staticmethod(lambda: None)

        def index_cpu_to_gpu(self, *_):
            raise RuntimeError("Error in f at a.cpp:1: Error: 'x' failed: This index type is not implemented on GPU")

    index = build_faiss(VECTORS, settings_for("HNSW8"))._placed.index
    monkeypatch.setattr(devices, "gpu_count", lambda: 1)
    placed = devices.place(Library(), index, settings_for("HNSW8", device="auto"))
    assert (placed.index, placed.device) == (index, "cpu")
    with pytest.raises(ResourceError, match="not implemented on GPU"):
        devices.place(Library(), index, settings_for("HNSW8", device="gpu"))


def test_something_that_is_no_index_is_refused(tmp_path):
    path = tmp_path / "index.faiss"
    path.write_bytes(b"IxFI" + os.urandom(64))
    with pytest.raises(IntegrityError, match="no readable FAISS index"):
        read_faiss(path, settings_for("Flat"))


def test_a_damaged_length_does_not_make_faiss_allocate(tmp_path):
    path = tmp_path / "index.faiss"
    build_index(VECTORS, settings_for("Flat")).write(path)
    content = bytearray(path.read_bytes())
    # The length of the vectors stands just before them: 600 x 16 numbers become 2^40.
    position = len(content) - FOOTER - VECTORS.nbytes - 8
    assert int.from_bytes(content[position : position + 8], "little") in {VECTORS.size, VECTORS.nbytes}
    content[position : position + 8] = (1 << 40).to_bytes(8, "little")
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match="no readable FAISS index"):
        read_faiss(path, settings_for("Flat"))


def test_a_file_that_cannot_be_written_is_a_resource_error(tmp_path):
    with pytest.raises(ResourceError):
        build_index(VECTORS, settings_for("Flat")).write(tmp_path / "no" / "folder" / "index.faiss")


def test_exact_search_needs_no_faiss(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "faiss", None)
    faiss_library.cache_clear()
    try:
        build_index(VECTORS, settings_for("exact")).write(tmp_path / "index")
        hits = read_index(tmp_path / "index", settings_for("exact"), count=600, dimension=16).search(VECTORS[:2], 3)
    finally:
        faiss_library.cache_clear()
    assert hits.rows.shape == (2, 3)


def test_places_that_no_visited_list_fills_are_marked():
    vectors = np.random.default_rng(5).normal(size=(400, 8)).astype(np.float32)
    hits = build_index(vectors, IndexSettings(factory="IVF8,Flat", nprobe=1, device="cpu")).search(vectors[:9], 400)
    missing = hits.rows < 0
    assert missing.any(axis=1).all()
    assert np.isneginf(hits.scores[missing]).all()
    assert np.isfinite(hits.scores[~missing]).all()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("items", [1, 600])
def test_a_full_disk_is_an_error_even_where_only_the_last_bytes_do_not_fit(items):
    with pytest.raises(ResourceError, match="disk is full"):
        build_index(VECTORS[:items], settings_for("Flat")).write(Path("/dev/full"))
