"""safetensors files, written and read piece by piece: what they hold may be larger than what fits."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from retrieval.core.artifacts import sha256_of
from retrieval.core.errors import IntegrityError
from retrieval.training.sharded_rows import CHUNK, ShardedRows, Stored

_NAMES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""As the format calls them, in the order in which its own library lays them out: every tensor is aligned."""
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}
_ALIGNED = 8


def write_tensors(path: Path, tensors: Mapping[str, Stored]) -> str:
    """Write the bytes that `safetensors.torch.save_file` would, a chunk at a time, and return their sha256.

    Other processes that hold rows of the tensors call `send_rows` with the same at the same time.
    """
    digest = hashlib.sha256()
    with path.open("wb") as stream:
        for piece in _pieces(tensors):
            digest.update(piece)
            stream.write(piece)
    return digest.hexdigest()


def send_rows(tensors: Mapping[str, Stored]) -> None:
    """Hand the rows that lie in this process to the leader, which writes them."""
    for name in _in_order(tensors):
        value = tensors[name]
        if isinstance(value, ShardedRows):
            value.send()


def _pieces(tensors: Mapping[str, Stored]) -> Iterator[memoryview | bytes]:
    names = _in_order(tensors)
    yield _header({name: tensors[name] for name in names})
    for name in names:
        for chunk in _chunks(tensors[name]):
            yield _bytes(chunk)


def _in_order(tensors: Mapping[str, Stored]) -> list[str]:
    kinds = list(_NAMES)
    return sorted(tensors, key=lambda name: (kinds.index(tensors[name].dtype), name))


def _header(tensors: Mapping[str, Stored]) -> bytes:
    described, past = {}, 0
    for name, value in tensors.items():
        first, past = past, past + torch.Size(value.shape).numel() * value.dtype.itemsize
        described[name] = {"dtype": _NAMES[value.dtype], "shape": list(value.shape), "data_offsets": [first, past]}
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNED)
    return len(text).to_bytes(8, "little") + text


def _chunks(value: Stored) -> Iterable[Tensor]:
    if isinstance(value, ShardedRows):
        return value.chunks()
    return (piece.cpu() for piece in torch.split(value.detach().contiguous().flatten(), CHUNK))


def _bytes(values: Tensor) -> memoryview:
    numbers: NDArray[np.uint8] = values.contiguous().flatten().view(torch.uint8).numpy()
    return numbers.data


class TensorFile(Mapping[str, Tensor]):
    """The tensors of a safetensors file whose bytes were verified, each read when it is asked for.

    Read, not mapped: a mapped file that is replaced under a running process would crash it.

    Raises:
        IntegrityError: it is no safetensors file, or not all of one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as stream:
                length = int.from_bytes(stream.read(8), "little")
                self._begin = 8 + length
                self._described: dict[str, Any] = json.loads(stream.read(length))
        except (OSError, ValueError) as error:
            raise IntegrityError(f"is no safetensors file: {error}", where=path) from None
        self._described.pop("__metadata__", None)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of all tensors."""
        return {name: tuple(described["shape"]) for name, described in self._described.items()}

    def __getitem__(self, name: str) -> Tensor:
        described = self._described[name]
        return self._read(name, 0, torch.empty(described["shape"], dtype=_DTYPES[described["dtype"]]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._described)

    def __len__(self) -> int:
        return len(self._described)

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Put the whole file into tensors of the same names, a chunk at a time.

        Raises:
            IntegrityError: it holds other names or other shapes; the tensors are as they were.
        """
        shapes = {name: tuple(value.shape) for name, value in tensors.items()}
        unlike = sorted(name for name in shapes.keys() | self.keys() if shapes.get(name) != self.shapes.get(name))
        if unlike:
            raise IntegrityError(f"does not fit: {', '.join(unlike)}", where=self.path, remedy="was it written by another version?")
        for name, value in tensors.items():
            self.copy(name, value)

    @torch.no_grad()
    def copy(self, name: str, into: Tensor) -> None:
        """Put one tensor into another of its shape, a chunk at a time."""
        dtype, begin = _DTYPES[self._described[name]["dtype"]], 0
        for part in torch.split(into.detach().view(-1), CHUNK):
            read = self._read(name, begin * dtype.itemsize, torch.empty(len(part), dtype=dtype))
            part.copy_(read)
            begin += len(part)

    def rows(self, name: str, first: int, past: int) -> Tensor:
        """The rows [first, past) of a tensor."""
        described = self._described[name]
        values = torch.empty(past - first, *described["shape"][1:], dtype=_DTYPES[described["dtype"]])
        return self._read(name, first * values[:1].nbytes, values)

    @torch.no_grad()
    def take(self, name: str, sources: Int[Tensor, " R"], into: Tensor) -> None:
        """Put the rows `sources` of a tensor into another one, whose row stays as it is at -1; the file is read once, a chunk at a time."""
        order = torch.argsort(sources)
        order = order[sources[order] >= 0]
        wanted, (count, *rest) = sources[order], self.shapes[name]
        together = max(1, CHUNK // torch.Size(rest).numel())
        for first in range(0, count, together):
            low, high = torch.searchsorted(wanted, torch.tensor([first, first + together])).tolist()
            if low < high:
                chunk = self.rows(name, first, min(count, first + together))
                into[order[low:high]] = chunk[wanted[low:high] - first].to(into)

    def _read(self, name: str, skipped: int, into: Tensor) -> Tensor:
        with self.path.open("rb", buffering=0) as stream:
            stream.seek(self._begin + self._described[name]["data_offsets"][0] + skipped)
            wanted, got = _bytes(into), 0
            while got < len(wanted):
                count = stream.readinto(wanted[got:])
                if not count:
                    raise IntegrityError(f"ends inside '{name}'", where=self.path)
                got += count
        return into


def compare(path: Path, sha256: str) -> None:
    """Raise IntegrityError unless the file has these bytes."""
    if sha256_of(path) != sha256:
        raise IntegrityError("is damaged: its sha256 changed", where=path)
