"""The limits of a GPU, on a library that only pretends to have one."""

import numpy as np
import pytest

from retrieval.core.errors import ResourceError
from retrieval.index.faiss import devices
from retrieval.index.faiss.build import build_faiss
from retrieval.index.faiss.devices import Placed
from retrieval.index.faiss.library import faiss_library
from retrieval.index.settings import IndexSettings

VECTORS = np.random.default_rng(0).normal(size=(3000, 8)).astype(np.float32)
FULL = "Error in alloc at StdResources.cpp:1: Error: 'err == cudaSuccess' failed: cudaMalloc error out of memory"


def settings_for(factory: str, **changes) -> IndexSettings:
    return IndexSettings(factory=factory, **{"device": "cpu", "threads": 1, **changes})


class OneGpu:
    """FAISS with a GPU that takes an index and hands it back, or fails."""

    def __init__(self, failure: str = "") -> None:
        self.failure = failure

    def __getattr__(self, name):
        return getattr(faiss_library(), name)

    def StandardGpuResources(self):  # noqa: N802 - FAISS's name
        return None

    def index_cpu_to_gpu(self, _resources, _device, index):
        if self.failure:
            raise RuntimeError(self.failure)
        return index


@pytest.fixture
def _gpu(monkeypatch):
    monkeypatch.setattr(devices, "gpu_count", lambda: 1)


@pytest.mark.usefixtures("_gpu")
@pytest.mark.parametrize(
    ("nprobe", "failure", "why"), [(2049, "", "2049 is more than the 2048 lists"), (4, FULL, "memory cannot hold it: cudaMalloc")]
)
def test_what_a_gpu_cannot_do_is_done_by_the_cpu_or_refused(nprobe, failure, why, capsys):
    index = faiss_library().index_factory(8, "IVF2500,Flat", faiss_library().METRIC_INNER_PRODUCT)
    assert not devices.place(OneGpu(failure), index, settings_for("IVF2500,Flat", device="auto", nprobe=nprobe)).on_gpu
    assert why in "".join(capsys.readouterr())
    with pytest.raises(ResourceError, match=why):
        devices.place(OneGpu(failure), index, settings_for("IVF2500,Flat", device="gpu", nprobe=nprobe))


@pytest.mark.usefixtures("_gpu")
def test_as_many_lists_as_a_gpu_visits_go_there():
    index = faiss_library().index_factory(8, "IVF2048,Flat", faiss_library().METRIC_INNER_PRODUCT)
    assert devices.place(OneGpu(), index, settings_for("IVF2048,Flat", device="gpu", nprobe=9999)).on_gpu


class FullGpu:
    """An index whose searches run out of memory."""

    def __init__(self) -> None:
        self.calls = 0

    def search(self, *_arguments, **_named):
        self.calls += 1
        raise RuntimeError(FULL)


@pytest.mark.parametrize(("n", "calls"), [(2049, 0), (10, 1)])
def test_a_search_that_a_gpu_cannot_do_falls_back_once_and_says_so(n, calls, monkeypatch, capsys):
    index = build_faiss(VECTORS, settings_for("Flat"))
    on_cpu, full = index._placed, FullGpu()
    index._placed = Placed(full, on_gpu=True, several=True)
    copies = []
    monkeypatch.setattr(devices, "on_cpu", lambda *_: copies.append(1) or on_cpu.index)
    monkeypatch.setattr("retrieval.index.faiss.index.takes_selector", lambda *_: False)
    wanted = np.argsort(-(VECTORS[:3] @ VECTORS.T), axis=1, kind="stable")[:, :n]
    for _ in range(2):
        assert np.mean(index.search(VECTORS[:3], n).rows == wanted) > 0.99
    assert len(copies) == 1
    assert full.calls == 2 * calls
    assert "".join(capsys.readouterr()).count("searched on the CPU") == 1


class LimitedGpu:
    """An index on the CPU that takes what a GPU takes."""

    def __init__(self, index) -> None:
        self.index, self.asked = index, []

    def search(self, queries, k, **named):
        self.asked.append(k)
        if k > devices.GPU_LIMIT:
            raise RuntimeError("k > 2048")
        return self.index.search(queries, k, **named)


def test_rows_that_died_never_drive_a_search_past_what_a_gpu_takes(monkeypatch):
    index = build_faiss(VECTORS, settings_for("Flat"))
    index.remove(np.arange(600))
    limited, on_cpu = LimitedGpu(index._placed.index), index._placed.index
    index._placed = Placed(limited, on_gpu=True, several=True)
    monkeypatch.setattr(devices, "on_cpu", lambda *_: on_cpu)
    monkeypatch.setattr("retrieval.index.faiss.index.takes_selector", lambda *_: False)
    wanted = 600 + np.argsort(-(VECTORS[:3] @ VECTORS[600:].T), axis=1, kind="stable")
    for n in (700, 1900):
        assert np.mean(index.search(VECTORS[:3], n).rows == wanted[:, :n]) > 0.99
    assert max(limited.asked) <= devices.GPU_LIMIT


def test_more_lists_than_a_gpu_visits_are_too_deep_for_it():
    index = build_faiss(VECTORS, settings_for("IVF2500,Flat", train_sample=3000))
    index._placed = Placed(index._placed.index, on_gpu=True)
    why = devices.too_deep(faiss_library(), index._placed, 10, 2400)
    assert why == "nprobe = 2400 is more than the 2048 lists that a GPU visits"
    assert devices.too_deep(faiss_library(), index._placed, 10, 2048) == ""


def test_cagra_without_a_gpu_is_a_resource_error():
    with pytest.raises(ResourceError, match="CAGRA is built on a GPU and this FAISS sees none"):
        build_faiss(VECTORS, settings_for("CAGRA32"))
