"""FAISS on a GPU finds what it finds on the CPU; skipped where FAISS sees none."""

import numpy as np
import pytest

from retrieval.core.errors import ResourceError
from retrieval.index.faiss.build import build_faiss, read_faiss
from retrieval.index.faiss.library import gpu_count, kinds
from retrieval.index.settings import IndexSettings


def why_not() -> str:
    try:
        return "" if gpu_count() else "this FAISS sees no GPU"
    except ResourceError as error:
        return str(error)


pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(why_not()), reason=why_not() or "FAISS sees a GPU")]
VECTORS = np.random.default_rng(0).normal(size=(20_000, 32)).astype(np.float32)
QUERIES = np.random.default_rng(1).normal(size=(200, 32)).astype(np.float32)


def settings_for(factory: str, device: str, **changes) -> IndexSettings:
    return IndexSettings(factory=factory, device=device, **{"nprobe": 16, "ef_search": 256, **changes})


def overlap(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found.tolist(), wanted.tolist(), strict=True)]))


@pytest.mark.parametrize("factory", ["Flat", "IVF64,Flat", "IVF64,SQ8", "IVF64,PQ16"])
def test_a_gpu_finds_what_the_cpu_finds(factory, tmp_path):
    build_faiss(VECTORS, settings_for(factory, "cpu")).write(tmp_path / "index")
    here, there = (read_faiss(tmp_path / "index", settings_for(factory, device)) for device in ("cpu", "gpu"))
    assert (here.device, there.device) == ("cpu", "gpu")
    wanted, found = here.search(QUERIES, 50), there.search(QUERIES, 50)
    assert overlap(found.rows, wanted.rows) > 0.99
    assert np.allclose(found.scores, wanted.scores, rtol=1e-2, atol=0.1)


@pytest.mark.parametrize("factory", ["HNSW16", "IVF64,PQ16x4fs,RFlat"])
def test_kinds_that_no_gpu_takes_stay_on_the_cpu(factory):
    assert build_faiss(VECTORS[:5000], settings_for(factory, "auto")).device == "cpu"
    with pytest.raises(ResourceError, match="cannot live on a GPU"):
        build_faiss(VECTORS[:5000], settings_for(factory, "gpu"))


def test_a_search_beyond_the_limit_of_a_gpu_is_answered_by_the_cpu():
    index = build_faiss(VECTORS, settings_for("IVF64,Flat", "gpu", nprobe=64))
    hits = index.search(QUERIES[:5], 3000)
    assert (hits.rows >= 0).all()
    wanted = np.argsort(-(QUERIES[:5] @ VECTORS.T), axis=1)[:, :3000]
    assert overlap(hits.rows, wanted) > 0.999


def test_what_was_added_and_removed_on_a_gpu_is_in_the_file(tmp_path):
    index = build_faiss(VECTORS[:10_000], settings_for("IVF64,Flat", "gpu", nprobe=64))
    index.add(VECTORS[10_000:])
    index.remove(np.arange(0, 20_000, 2))
    index.write(tmp_path / "index")
    for each in (index, read_faiss(tmp_path / "index", settings_for("IVF64,Flat", "cpu", nprobe=64))):
        scores = QUERIES @ VECTORS.T
        scores[:, ::2] = -np.inf
        assert overlap(each.search(QUERIES, 20).rows, np.argsort(-scores, axis=1)[:, :20]) > 0.99


@pytest.mark.skipif(not why_not() and not kinds()["CAGRA on a GPU"], reason="this FAISS has no CAGRA")
def test_cagra_finds_nearly_all_and_is_read_without_a_gpu(tmp_path):
    index = build_faiss(VECTORS, settings_for("CAGRA32", "gpu"))
    wanted = np.argsort(-(QUERIES @ VECTORS.T), axis=1)[:, :20]
    assert overlap(index.search(QUERIES, 20).rows, wanted) > 0.9
    index.write(tmp_path / "index")
    assert overlap(read_faiss(tmp_path / "index", settings_for("CAGRA32", "cpu")).search(QUERIES, 20).rows, wanted) > 0.8
