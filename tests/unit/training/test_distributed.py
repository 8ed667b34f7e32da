"""Processes that train together end with the weights of one at the same batches, however the item table lies in them."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from retrieval.core.errors import ResourceError, UsageError
from retrieval.core.settings import parse_settings
from retrieval.training.checkpoints import Checkpoints
from retrieval.training.distributed import ALONE, World
from retrieval.training.examples import Slots, Windows
from retrieval.training.optimizer import ROW_WISE_FROM
from retrieval.training.settings import TrainSettings
from retrieval.training.sharding import held_rows

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
spec = importlib.util.spec_from_file_location("several_processes", HERE / "several_processes.py")
assert spec is not None
assert spec.loader is not None
cases = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cases)
BLIND = "encoder.heads.bias"
"""ComiRec-SA's softmax does not see this bias: its gradient is rounding alone, of which Adam makes whole steps."""


def left_by(count: int, folder: Path) -> Path:
    """What so many processes left behind."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    started = [
        subprocess.Popen(
            [sys.executable, HERE / "several_processes.py", str(rank), str(count), folder],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(count)
    ]
    said = [process.communicate(timeout=600)[0] for process in started]
    assert [process.returncode for process in started] == [0] * count, "\n".join(said)
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two replicas left behind."""
    return left_by(2, tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What three processes left behind, which hold the item table in shards and, beside it, each of them whole."""
    return left_by(3, tmp_path_factory.mktemp("three"))


def read(folder: Path, name: str, rank: int = 0) -> dict[str, torch.Tensor]:
    return load_file(folder / f"{name}-{rank}.safetensors")


@pytest.mark.parametrize("case", cases.CASES)
def test_two_processes_end_with_the_weights_of_one(two: Path, tmp_path: Path, case: str) -> None:
    run = cases.make_run(case, tmp_path)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    state, expected = cases.ended(run)
    found = read(two, case)
    for name in expected.keys() - {BLIND} - run.model.counted:
        torch.testing.assert_close(found[name], expected[name], atol=2e-6, rtol=0, msg=lambda text, name=name: f"{name}: {text}")
        assert (expected[name] - before[name]).abs().max() > 1e-3, f"{name} did not move"
    for number, point in enumerate(state.curve):
        assert float(found[f"loss/{number}"]) == pytest.approx(point["loss"], abs=1e-5)
        assert float(found[f"recall@5/{number}"]) == pytest.approx(point["recall@5"], abs=1e-6)
        assert float(found[f"interest_cosine/{number}"]) == pytest.approx(point["interest_cosine"], abs=1e-4)


@pytest.mark.parametrize("case", [*cases.CASES, "whole", "parts"])
def test_every_process_has_the_same_bits(two: Path, case: str) -> None:
    first, second = read(two, case, 0), read(two, case, 1)
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_stopped_by_a_signal_to_one_process_they_end_with_the_same_bytes(two: Path) -> None:
    whole, parts = read(two, "whole"), read(two, "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_dropout_draws_differ_between_processes(two: Path, tmp_path: Path) -> None:
    """With the same draws in both, or with none, the weights would be those of the run without dropout or of one process."""
    whole = read(two, "whole")
    one = cases.ended(cases.make_run("slots", tmp_path, dropout=0.3))[1]
    assert not torch.allclose(whole["items.embedding.weight"], one["items.embedding.weight"], atol=1e-5)
    assert (World(0, 2).draws, World(1, 2).draws, ALONE.draws) == ((), (1,), ())


def test_a_checkpoint_of_two_processes_goes_on_in_one(two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = two / "checkpoints" / "other-size"
    assert Checkpoints(folder).load()[0].processes == 2
    state, found = cases.ended(cases.make_run("slots", folder))
    said = capsys.readouterr()
    assert "goes on with another number of processes" in said.out + said.err
    assert (state.step, state.processes) == (5, 1)
    expected = cases.ended(cases.make_run("slots", tmp_path))[1]
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=2e-6, rtol=0)


@pytest.mark.parametrize("case", cases.SHARDED)
def test_a_sharded_table_costs_no_bit_of_what_replicas_give(three: Path, case: str) -> None:
    """Weights, losses, recall and the health of the interests, in every process."""
    for rank in range(3):
        replicas, shards = read(three, f"{case}-replicated", rank), read(three, f"{case}-rows", rank)
        assert {"loss/1", "recall@5/1", "effective_rank/1", "items.embedding.weight"} <= replicas.keys() == shards.keys()
        assert [name for name, value in replicas.items() if not torch.equal(value, shards[name])] == []


@pytest.mark.parametrize("case", cases.SHARDED)
def test_shards_end_with_the_weights_of_one_process(three: Path, tmp_path: Path, case: str) -> None:
    run = cases.sharded_run(tmp_path, ALONE, "rows", **cases.SHARDED[case])
    assert not run.model.items.sharded, "the setting is of several processes"
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    found, (_, expected) = read(three, f"{case}-rows"), cases.ended(run)
    for name in expected.keys() - {BLIND} - run.model.counted:
        # Deeper encoders round more: half a percent of what the weights move at least.
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=0, msg=lambda text, name=name: f"{name}: {text}")
    assert (expected["items.embedding.weight"] - before["items.embedding.weight"]).abs().max() > 2e-3


@pytest.mark.parametrize("case", cases.SHARDED)
def test_the_checkpoints_of_shards_are_the_files_of_replicas(three: Path, case: str) -> None:
    folders = [three / "checkpoints" / f"{case}-{sharding}" for sharding in ("replicated", "rows")]
    files = [{path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.safetensors")} for folder in folders]
    assert Path("best.safetensors") in files[0]
    assert Path("step-000000004/optimizer.safetensors") in files[0]
    assert files[0] == files[1]


@pytest.mark.parametrize("parts", ["rows-rows", "rows-replicated", "replicated-rows"])
def test_a_checkpoint_goes_on_with_the_same_bits_whichever_way_the_table_lies(three: Path, parts: str) -> None:
    whole, found = read(three, "slots-rows"), read(three, parts)
    assert [name for name, value in whole.items() if not torch.equal(value, found[name])] == []


def test_a_checkpoint_of_shards_goes_on_in_one_process(three: Path, tmp_path: Path) -> None:
    folder, settings = three / "checkpoints" / "other-size", cases.SHARDED["windows"]
    assert Checkpoints(folder).load()[0].processes == 3
    state, found = cases.ended(cases.sharded_run(folder, ALONE, "rows", **settings))
    assert (state.step, state.processes) == (5, 1)
    expected = cases.ended(cases.sharded_run(tmp_path, ALONE, "rows", **settings))[1]
    for name in expected.keys() - {BLIND}:
        torch.testing.assert_close(found[name], expected[name], atol=2e-6, rtol=0)


@pytest.mark.parametrize("rank", range(3))
def test_no_process_makes_a_tensor_larger_than_its_share_of_the_table(three: Path, rank: int) -> None:
    """Not for the first weights, a step, a validation, a checkpoint or going on from one; replicas make the whole."""
    largest, table = read(three, "largest", rank), cases.LARGE * 8 * 4
    assert largest["replicated"] == table
    assert largest["rows"] == table // 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss": {"name": "full-softmax"}}, "does not go with loss.name = 'full-softmax'"),
        ({"optimizer": {"item_table": "dense"}}, "needs optimizer.item_table = 'row-wise'"),
    ],
)
def test_what_reads_the_whole_table_is_refused_with_shards(values: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_settings(TrainSettings, {"sharding": "rows", **values}, "test")


def test_a_table_that_is_dense_by_its_size_is_refused_by_several_processes_alone() -> None:
    settings = TrainSettings(sharding="rows")
    with pytest.raises(UsageError, match="needs a row-wise item table, and for 3,416 items"):
        held_rows(settings, 3416, World(1, 2))
    assert held_rows(settings, 3416, ALONE) is None
    assert held_rows(settings, ROW_WISE_FROM, World(1, 2)) == slice(ROW_WISE_FROM // 2, ROW_WISE_FROM)
    assert held_rows(TrainSettings(), ROW_WISE_FROM, World(1, 2)) is None


@pytest.mark.parametrize(("count", "size"), [(7, 2), (5, 3), (2, 4), (0, 2)])
def test_shares_are_everything_once_in_order_and_alike(count: int, size: int) -> None:
    shares = [range(count)[World(rank, size).share(count)] for rank in range(size)]
    assert [number for share in shares for number in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_windows_of_a_slot_stay_with_one_process() -> None:
    number = torch.tensor([0, 0, 0, 1, 2, 2, 3])
    marks = torch.zeros(7, dtype=torch.bool)
    slotted = Windows(number, number + 1, number + 1, slots=Slots(number, marks, marks, 4))
    assert [slotted.own(World(rank, 2)).tolist() for rank in range(2)] == [[0, 1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize("exchange", ["all_reduce", "all_gather", "broadcast"])
def test_a_lost_process_is_an_error_with_a_way_on(monkeypatch: pytest.MonkeyPatch, exchange: str) -> None:
    """What the launcher then does to the others may be quicker than their last words, so no command is asked for them."""

    def closed(*what: object, **how: object) -> None:
        raise RuntimeError("[gloo/transport/tcp/pair.cc] Connection closed by peer\nmore")

    monkeypatch.setattr(torch.distributed, exchange, closed)
    world, values = World(0, 2), torch.ones(3)
    used = {"all_reduce": lambda: world.add(values), "all_gather": lambda: world.gathered(values), "broadcast": lambda: world.told(1)}
    with pytest.raises(ResourceError, match=r"another process is gone \(.*Connection closed by peer\)") as caught:
        used[exchange]()
    assert "training goes on from its checkpoint" in str(caught.value)


def test_alone_an_exchange_is_the_value_itself() -> None:
    values = torch.ones(3)
    assert ALONE.add(values) is values
    assert ALONE.joined(values, 3) is values
    assert ALONE.told({"step": 3}) == {"step": 3}
    assert ALONE.sum([1.5]) == [1.5]
