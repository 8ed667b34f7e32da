"""Files written and read piece by piece are those that the format's own library writes and reads."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from retrieval.core.artifacts import sha256_of
from retrieval.core.errors import IntegrityError
from retrieval.training import sharded_rows, tensor_files
from retrieval.training.distributed import ALONE
from retrieval.training.sharded_rows import ShardedRows
from retrieval.training.tensor_files import TensorFile, compare, send_rows, write_tensors

TENSORS = {
    "table": torch.randn(101, 7),
    "flags": torch.tensor([True, False, True]),
    "steps": torch.tensor(5),
    "äöü": torch.randn(3, dtype=torch.float64),
    "half": torch.randn(2, 3).to(torch.bfloat16),
    "none": torch.empty(0, 4),
    "last": torch.arange(9, dtype=torch.int32),
    "across": torch.randn(4, 6).T,
}


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_files, "CHUNK", 10)
    monkeypatch.setattr(sharded_rows, "CHUNK", 10)


def written(folder: Path, **changes) -> Path:
    path = folder / "own.safetensors"
    assert write_tensors(path, TENSORS | changes) == sha256_of(path)
    return path


@pytest.mark.parametrize("changes", [{}, {"table": ShardedRows(TENSORS["table"], 101, ALONE)}], ids=["whole", "rows"])
def test_the_bytes_are_those_of_the_library(tmp_path: Path, changes: dict) -> None:
    save_file({name: value.contiguous() for name, value in TENSORS.items()}, tmp_path / "theirs.safetensors")
    assert written(tmp_path, **changes).read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()


def test_what_was_written_is_read_as_the_library_reads_it(tmp_path: Path) -> None:
    file, theirs = TensorFile(written(tmp_path)), load_file(written(tmp_path))
    assert file.keys() == theirs.keys() == TENSORS.keys()
    assert file.shapes == {name: tuple(value.shape) for name, value in TENSORS.items()}
    for name, value in TENSORS.items():
        assert file[name].dtype == value.dtype
        assert torch.equal(file[name], value)
        assert torch.equal(file[name], theirs[name])


def test_some_rows_are_put_where_they_are_wanted(tmp_path: Path) -> None:
    into = torch.full((5, 7), -1.0)
    TensorFile(written(tmp_path)).take("table", torch.tensor([100, -1, 3, 0, 3]), into)
    assert torch.equal(into, torch.where(torch.tensor([0, 1, 0, 0, 0]).bool()[:, None], -1.0, TENSORS["table"][[100, 0, 3, 0, 3]]))


def test_rows_are_read_without_the_others(tmp_path: Path) -> None:
    file = TensorFile(written(tmp_path))
    assert torch.equal(file.rows("table", 17, 40), TENSORS["table"][17:40])
    assert file.rows("table", 5, 5).shape == (0, 7)
    filled = ShardedRows(torch.zeros(101, 7), 101, ALONE)
    filled.fill(lambda first, past: file.rows("table", first, past))
    assert torch.equal(filled.own, TENSORS["table"])


def test_tensors_are_filled_in_place_or_not_touched(tmp_path: Path) -> None:
    file = TensorFile(written(tmp_path))
    own = {name: torch.zeros(value.shape, dtype=value.dtype) for name, value in TENSORS.items()}
    file.fill(own)
    assert all(torch.equal(value, TENSORS[name]) for name, value in own.items())
    unlike = {name: torch.zeros(value.shape) for name, value in own.items() if name != "half"} | {"table": torch.zeros(7, 101)}
    with pytest.raises(IntegrityError, match="does not fit: half, table"):
        file.fill(unlike)
    assert not any(value.any() for value in unlike.values())


def test_metadata_is_no_tensor(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors", metadata={"by": "somebody"})
    assert dict(TensorFile(tmp_path / "a.safetensors").items())["a"].tolist() == [1.0, 1.0]


def test_only_rows_in_shares_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    monkeypatch.setattr(ShardedRows, "send", lambda rows: sent.append(rows.total))
    send_rows(TENSORS | {"table": ShardedRows(TENSORS["table"], 101, ALONE)})
    assert sent == [101]


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    name = list(TensorFile(path))[-1]
    with pytest.raises(IntegrityError, match=f"ends inside '{name}'"):
        TensorFile(path)[name]
    path.write_bytes(b"\x09" + b"\x00" * 7 + b"no header")
    with pytest.raises(IntegrityError, match="is no safetensors file"):
        TensorFile(path)
    with pytest.raises(IntegrityError, match="its sha256 changed"):
        compare(path, sha256_of(path)[:-1] + "x")
