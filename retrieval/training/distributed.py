"""Several processes that train one model: who computes what, and sums over all of them.

Data parallel with replicas. A batch is a function of (seed, step), so every process plans the whole of it, the weights of
the examples and all negatives included, encodes the windows of its own share, and the gradients of the shares add up
to that of the batch. Nothing but gradients travels: the rows of other processes' positives are in the plan, and each
process embeds them itself, so that their gradients come back with all others.

The sum is taken once, after the backward pass, and not in buckets during it as DistributedDataParallel does: nearly all
of the gradient is the item table's, which is complete only when the backward pass ends, because the inputs of
the encoder are its first layer; nothing is left to hide behind. A table that is read row by row has a gradient in the
rows of the step alone, and only those travel.
"""

import datetime as dt
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributed.distributed_c10d import Store

from retrieval.core.errors import IntegrityError, ResourceError, UsageError
from retrieval.core.ranks import Place
from retrieval.models.lookups import RowGradients

_TOGETHER = 1 << 16
"""Gradients of fewer numbers travel in one message."""
_SUMMED = 1 << 22
"""Numbers that are compared at a time: their sum makes a copy of twice the size."""
_TIMEOUT = dt.timedelta(minutes=30)
"""For one exchange; the longest wait is that for the leader's checkpoint."""


@dataclass(frozen=True)
class World:
    """A process among those that train together. What all of them get from an exchange has the same bits."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Is it the process that reads and writes files?"""
        return self.rank == 0

    @property
    def draws(self) -> tuple[int, ...]:
        """What sets the random draws of this process apart from those of others; the first one draws as if alone."""
        return () if self.leads else (self.rank,)

    def share(self, count: int) -> slice:
        """Which of `count` things are its own: a contiguous part, all parts of like size."""
        least, more = divmod(count, self.size)
        first = self.rank * least + min(self.rank, more)
        return slice(first, first + least + (self.rank < more))

    def shares(self, count: int) -> list[slice]:
        """The shares of all processes, in order."""
        return [each.share(count) for each in self.members]

    @property
    def members(self) -> list["World"]:
        """Every process, as it sees itself."""
        return [World(rank, self.size) for rank in range(self.size)]

    def among(self, count: int) -> "World":
        """The processes that share `count` things; too few of them to go round, and each process does them all."""
        return self if count >= self.size else ALONE

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sums over the processes of a few numbers."""
        if self.size == 1:
            return list(values)
        return self.add(torch.tensor(values, dtype=torch.float64)).tolist()

    def add(self, values: Tensor) -> Tensor:
        """The sum over the processes, in place."""
        if self.size > 1:
            with _lost_others():
                dist.all_reduce(values)
        return values

    def add_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Sum the gradients; a process whose share of the batch does not reach a parameter adds zero."""
        if self.size == 1:
            return
        small: list[Tensor] = []
        for parameter in parameters:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.contiguous()
            parameter.grad = gradient
            if gradient.numel() < _TOGETHER:
                small.append(gradient)
            else:
                self.add(gradient)
        if small:
            summed = self.add(torch.cat([gradient.flatten() for gradient in small]))
            for gradient, values in zip(small, torch.split(summed, [each.numel() for each in small]), strict=True):
                gradient.copy_(values.view_as(gradient))

    def add_rows(self, own: RowGradients) -> RowGradients:
        """The gradients of all rows that any process has read; those of one row summed."""
        if self.size == 1:
            return own
        rows = torch.unique(self._every(own.rows))
        values = own.values.new_zeros(len(rows), own.values.shape[1])
        values[torch.searchsorted(rows, own.rows)] = own.values
        return RowGradients(rows, self.add(values))

    def joined(self, part: Float[Tensor, "b *S"], total: int) -> Float[Tensor, "B *S"]:
        """The rows of all processes in order, of which each brings its share."""
        if self.size == 1:
            return part
        whole = part.new_zeros(total, *part.shape[1:])
        whole[self.share(total)] = part
        return self.add(whole)

    def gathered(self, values: Tensor) -> list[Tensor]:
        """What each process brings, in order; all of the same shape."""
        if self.size == 1:
            return [values]
        found = [torch.empty_like(values) for _ in range(self.size)]
        with _lost_others():
            dist.all_gather(found, values)
        return found

    def swapped(self, rows: Float[Tensor, "S D"], sent: list[int], received: list[int]) -> Float[Tensor, "R D"]:
        """The rows that every process has for this one, in the order of the processes; `rows` are those for each of them in turn.

        `sent` and `received` say how many there are for and from each process.
        """
        found = rows.new_empty(sum(received), rows.shape[1])
        with _lost_others():
            dist.all_to_all_single(found, rows, received, sent)
        return found

    def send(self, values: Tensor, to: int) -> None:
        """Give a tensor to one process, which has to `receive` it."""
        with _lost_others():
            dist.send(values.cpu().contiguous(), to)

    def receive(self, values: Tensor, sender: int) -> Tensor:
        """What one process sends into a tensor of the CPU."""
        with _lost_others():
            dist.recv(values, sender)
        return values

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Everybody's tensors become the leader's."""
        if self.size > 1:
            with _lost_others():
                for tensor in tensors:
                    dist.broadcast(tensor, src=0)

    def told(self, value: Any) -> Any:
        """What the leader says, as JSON knows it; what others say is not heard."""
        if self.size == 1:
            return value
        text = json.dumps(value if self.leads else None).encode()
        length = torch.tensor([len(text)])
        self.broadcast([length])
        letters = torch.zeros(int(length), dtype=torch.uint8)
        if self.leads:
            letters.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        self.broadcast([letters])
        return json.loads(letters.numpy().tobytes())

    def given(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The leader's tensors; what others bring is not looked at."""
        if self.size == 1:
            return dict(tensors)
        known = {name: [str(value.dtype).removeprefix("torch."), list(value.shape)] for name, value in tensors.items()}
        plan: dict[str, tuple[str, list[int]]] = self.told(known)
        empty = {name: torch.empty(shape, dtype=getattr(torch, kind)) for name, (kind, shape) in plan.items() if not self.leads}
        mine = {**empty, **(tensors if self.leads else {})}
        self.broadcast(list(mine.values()))
        return mine

    def require_same(self, tensors: Iterable[Tensor]) -> None:
        """Have all processes the same numbers? They compute them alike, each for itself; on unlike machines they might not.

        Raises:
            IntegrityError: some differ in a bit.
        """
        if self.size == 1:
            return
        pieces = (piece for tensor in tensors for piece in torch.split(tensor.detach().view(torch.int32).flatten(), _SUMMED))
        own = sum(int(piece.sum(dtype=torch.int64)) for piece in pieces)
        (others,) = self.sum([float(own != self.told(own))])
        if others:
            raise IntegrityError(
                f"the weights of {others:.0f} of {self.size} processes are not those of the first",
                where="train",
                expected="processors and versions of torch that compute alike",
            )

    def wait(self) -> None:
        """Until every process is here."""
        self.sum([0.0])

    def _every(self, rows: Int[Tensor, " r"]) -> Int[Tensor, " R"]:
        """The rows of all processes, one after the other."""
        counts = torch.zeros(self.size, dtype=torch.int64)
        counts[self.rank] = len(rows)
        lengths: list[int] = self.add(counts).tolist()
        padded = rows.new_zeros(max(lengths))
        padded[: len(rows)] = rows
        return torch.cat([each[:length] for each, length in zip(self.gathered(padded), lengths, strict=True)])


ALONE = World()
"""One process: every exchange is the value itself."""


@contextmanager
def _lost_others() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ResourceError(
            f"another process is gone ({reason})", where="train", remedy="run the same command again: training goes on from its checkpoint"
        ) from error


def join(place: Place, store: Store, device: torch.device) -> World:
    """Meet the other processes, each of which calls this; those of one machine take a GPU each, if that is the device.

    Raises:
        ResourceError: not all of them came, or there are not GPUs enough. UsageError: the device is one of several.
    """
    if device.type == "cuda":
        _take_gpu(place, device)
    with _lost_others():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.size, timeout=_TIMEOUT)
    return World(place.rank, place.size)


def _take_gpu(place: Place, device: torch.device) -> None:
    if ":" in str(device):
        raise UsageError(f"{place.size} processes cannot share the device '{device}'", where="machine.device", expected="auto, cpu or cuda")
    if place.local_size > torch.cuda.device_count():
        raise ResourceError(
            f"{place.local_size} processes and {torch.cuda.device_count()} GPUs", expected="a GPU each", remedy="lower --nproc-per-node"
        )
    torch.cuda.set_device(place.local_rank)


def leave() -> None:
    """Take leave of the others, in good order: each of them has to have got what it waits for."""
    if dist.is_initialized():
        dist.destroy_process_group()
