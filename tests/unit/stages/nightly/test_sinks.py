"""A night tells trackers that are installed; of one that is not it is said before the night begins."""

import importlib.util
import sys
import types

import pytest

from retrieval.core.errors import ResourceError
from retrieval.stages.nightly.metrics import _text
from retrieval.stages.nightly.sinks import figures


class Recorder(types.ModuleType):
    """Stands for MLflow: keeps what it is told."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.__spec__ = importlib.util.spec_from_loader("mlflow", None)
        self.told: list[tuple] = []

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*words, **named):
            self.told.append((name, words, named))
            return self

        return call

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.told.append(("ended", (), {}))


@pytest.fixture
def mlflow(monkeypatch) -> Recorder:
    monkeypatch.setitem(sys.modules, "mlflow", Recorder())
    return sys.modules["mlflow"]


MLFLOW = "nightly.tracking.sinks=['mlflow']"


def test_a_published_night_and_its_training_are_told(nights, mlflow: Recorder) -> None:
    record = nights.run(5, MLFLOW, "nightly.tracking.to=http://tracker")
    said = {name for name, _, _ in mlflow.told}
    assert {"set_tracking_uri", "set_experiment", "start_run", "set_tags", "ended"} <= said
    (first, *steps) = [(words[0], named) for name, words, named in mlflow.told if name == "log_metrics"]
    assert first[0] == figures(record)
    assert {"stage/train/seconds", "gate/volume", "recall_at_10", "exit_code"} <= first[0].keys()
    assert [named["step"] for _, named in steps] == [6]
    assert "training/loss" in steps[0][0]


def test_a_tracker_that_fails_costs_nothing(nights, mlflow: Recorder) -> None:
    mlflow.log_metrics = lambda *_, **__: (_ for _ in ()).throw(ConnectionError("gone"))
    assert nights.run(5, MLFLOW).status == "published"


def test_one_that_is_not_installed_is_said_at_once(nights, monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ResourceError, match=r"mlflow is not installed.*pip install"):
        nights.run(5, MLFLOW)
    assert not (nights.workspace / "dataset").exists()


def test_metrics_are_in_the_text_format(nights) -> None:
    from retrieval.core.publication import Publication

    record = nights.run(5).model_copy(update={"recipe": 'a"b\\c\nd'})
    lines = "".join(_text(Publication(nights.workspace, "walk"), record)).splitlines()
    samples = [line for line in lines if not line.startswith("#")]
    assert all(line.startswith("retrieval_nightly_") for line in samples)
    assert all(r'{recipe="a\"b\\c\nd"' in line for line in samples)
    assert all(float(line.rpartition(" ")[2]) is not None for line in samples)
    kinds = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(kinds) == len(set(kinds)) > 8
