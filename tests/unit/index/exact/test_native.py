"""Fused engines: emitted only where they run, and what stands in for them elsewhere."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from retrieval.core.errors import ResourceError
from retrieval.index.exact.index import ExactIndex
from retrieval.index.exact.lowering.items import OrderedItems
from retrieval.index.exact.native import instructions, probe
from retrieval.index.exact.native.engines import AmxEngine, DotEngine, FmaEngine
from retrieval.index.exact.processor import processor_has
from retrieval.index.settings import IndexSettings

# What a process says about itself whose compiled code may use nothing beyond the first x86-64 processors, or a plain ARM.
ON_AN_OLD_PROCESSOR = """
import numpy as np
from retrieval.index.exact.index import ExactIndex
from retrieval.index.exact.native.instructions import has_amx, has_dot
from retrieval.index.settings import IndexSettings
random = np.random.default_rng(0)
vectors, queries = (random.standard_normal((count, 16)).astype(np.float32) for count in (3000, 5))
index = ExactIndex(vectors, IndexSettings(factory="exact", threads=1))
hits = index.search(queries, 7)
print(has_amx(), has_dot(), index.engine.name, hits.rows.tolist())
"""


def small_index() -> ExactIndex:
    vectors = np.random.default_rng(0).standard_normal((3000, 16)).astype(np.float32)
    return ExactIndex(vectors, IndexSettings(factory="exact", threads=1))


def test_a_process_that_may_emit_no_vectors_searches_all_the_same():
    environment = os.environ | {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    result = subprocess.run([sys.executable, "-c", ON_AN_OLD_PROCESSOR], env=environment, capture_output=True, text=True, check=True)
    random = np.random.default_rng(0)
    vectors, queries = (random.standard_normal((count, 16)).astype(np.float32) for count in (3000, 5))
    rows = np.argsort(-(queries.astype(np.float64) @ vectors.T.astype(np.float64)), axis=1)[:, :7]
    assert result.stdout.strip().endswith(str(rows.tolist()))
    assert result.stdout.startswith("False False ")
    assert result.stdout.split()[2] not in {AmxEngine.name, DotEngine.name}


@pytest.mark.parametrize("engine", [AmxEngine, DotEngine])
def test_an_engine_that_the_machine_lacks_is_neither_chosen_nor_made(engine, monkeypatch):
    for lacking in (AmxEngine, DotEngine):
        monkeypatch.setattr(lacking, "probe", staticmethod(lambda: False))
    assert not engine.is_available()
    assert small_index().engine.name not in {AmxEngine.name, DotEngine.name}
    with pytest.raises(ResourceError, match="cannot run the engine"):
        engine(OrderedItems.of(np.ones((4, 2), np.float32), 1), 1)


def test_code_that_cannot_be_compiled_is_no_engine(monkeypatch):
    def refuse(*_):
        raise RuntimeError("LLVM IR parsing error")

    monkeypatch.setattr(probe, "_run", refuse)
    probe.works.cache_clear()
    assert not FmaEngine.is_available()
    assert small_index().search(np.ones((2, 16), np.float32), 3).rows.shape == (2, 3)
    probe.works.cache_clear()


def test_a_wrong_product_is_no_engine(monkeypatch):
    monkeypatch.setattr(probe, "_run", lambda *_: None)
    probe.works.cache_clear()
    assert not FmaEngine.is_available()
    probe.works.cache_clear()


def test_a_system_that_refuses_tiles_has_none(monkeypatch):
    monkeypatch.setattr(instructions, "_may_use_tiles", lambda: False)
    assert not instructions.has_amx()


def test_every_processor_lacks_what_does_not_exist():
    assert not processor_has("amx-of-next-year")


@pytest.mark.skipif(not AmxEngine.is_available(), reason="this processor has no AMX")
def test_torch_multiplies_as_before_after_the_tiles_were_given_back():
    # torch's library may keep tiles configured in a thread; ours are released at the end of every scan.
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(256, 256, generator=generator).bfloat16() for _ in range(2))
    before, index = left @ right, small_index()
    index.engine = AmxEngine(index._items, 1)
    for _ in range(3):
        index.search(np.ones((2, 16), np.float32), 3)
        assert torch.equal(left @ right, before)
