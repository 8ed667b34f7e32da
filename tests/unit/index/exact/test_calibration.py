"""The choice of an engine: by measurement or by the settings, never visible in a result."""

from typing import get_args

import numpy as np
import pytest
from pydantic import ValidationError

from retrieval.core.errors import ResourceError
from retrieval.index.exact import calibration
from retrieval.index.exact.calibration import calibrated, chosen_engine
from retrieval.index.exact.index import ExactIndex
from retrieval.index.exact.native.engines import AmxEngine
from retrieval.index.exact.table import ENGINES
from retrieval.index.settings import IndexSettings
from retrieval.stages import doctor

AVAILABLE = [name for name, engine in ENGINES.items() if engine.is_available()]


def index_with(**settings) -> ExactIndex:
    vectors = np.random.default_rng(0).standard_normal((3000, 16)).astype(np.float32)
    return ExactIndex(vectors, IndexSettings(factory="exact", threads=1, **settings))


def test_the_settings_know_every_engine():
    assert set(get_args(IndexSettings.model_fields["engine"].annotation)) == {"auto", *ENGINES}


@pytest.mark.parametrize(("device", "engine"), [("gpu", "amx"), ("gpu", "numpy"), ("cpu", "cuda")])
def test_a_device_and_an_engine_of_another_are_refused(device, engine):
    with pytest.raises(ValidationError, match=f"engine = '{engine}' does not run on device = '{device}'"):
        IndexSettings(device=device, engine=engine)
    assert IndexSettings(device=device, engine="cuda" if device == "gpu" else "amx").device == device


def test_a_large_index_gets_the_engine_that_searched_fastest(monkeypatch):
    measured = {"numpy": 5.0, "torch": 9.0}
    monkeypatch.setattr(calibration, "calibrated", lambda _: measured)
    assert chosen_engine(IndexSettings(), 1_000_000, 64).name == "numpy"
    assert chosen_engine(IndexSettings(), 100, 64).name == AVAILABLE[0]
    assert chosen_engine(IndexSettings(engine="float32"), 1_000_000, 64).name == "float32"


def test_every_engine_here_is_measured_once_and_the_fastest_comes_first(monkeypatch):
    calibrated.cache_clear()
    times = dict(zip(AVAILABLE, (3e-3, 1e-3, 2e-3, 5e-3, 4e-3), strict=False))
    monkeypatch.setattr(calibration, "_seconds", lambda search, _: times[search.engine.name])
    found = calibrated(8)
    assert sorted(found) == sorted(AVAILABLE)
    assert list(found) == sorted(AVAILABLE, key=times.__getitem__)
    monkeypatch.setattr(calibration, "_seconds", lambda *_: pytest.fail("measured twice"))
    assert calibrated(8) is found
    calibrated.cache_clear()


def test_a_calibration_ends_after_its_time(monkeypatch):
    calibrated.cache_clear()
    rounds = []
    monkeypatch.setattr(calibration, "_SECONDS", -1.0)
    monkeypatch.setattr(calibration, "_round", lambda searches, _: rounds.append(1) or dict.fromkeys(searches, 1.0))
    calibrated(4)
    assert len(rounds) == 1
    calibrated.cache_clear()


def test_the_named_engine_searches_and_all_give_the_same_bytes():
    queries = np.random.default_rng(1).standard_normal((20, 16)).astype(np.float32)
    indexes = [index_with(engine=name) for name in ["auto", *AVAILABLE]]
    hits = [index.search(queries, 30) for index in indexes]
    assert [index.engine.name for index in indexes[1:]] == AVAILABLE
    assert len({each.rows.tobytes() + each.scores.tobytes() for each in hits}) == 1


def test_an_engine_that_the_machine_lacks_is_an_error_with_a_remedy(monkeypatch):
    monkeypatch.setattr(AmxEngine, "is_available", classmethod(lambda _: False))
    with pytest.raises(ResourceError, match=r"cannot run the engine .amx..*auto"):
        _ = index_with(engine="amx").engine


def test_doctor_shows_what_was_measured():
    shown = doctor.examine()["exact search"]["us_a_query"]
    assert sorted(shown) == sorted(AVAILABLE)
    assert list(shown.values()) == sorted(shown.values())
