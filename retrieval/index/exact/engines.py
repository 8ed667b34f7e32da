"""Ways to multiply a group of users with the catalog; every one leaves the same candidates, which one is a matter of time."""

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Self

import numpy as np
from jaxtyping import Float32
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from retrieval.core.errors import ResourceError
from retrieval.index.exact.intrinsics import SEGMENT
from retrieval.index.exact.kernels import BLOCK, make_sortable, scan, set_cuts
from retrieval.index.exact.limits import SharedLimit
from retrieval.index.exact.lowering.items import LoweredItems, OrderedItems
from retrieval.index.exact.lowering.users import LoweredUsers
from retrieval.index.exact.processor import processor_has

Arrays = tuple[np.ndarray, ...]


class AbstractEngine(ABC):
    """Offers every item to a group of users (`exact.kernels` says what group, catalog and users are).

    columns: products a group should have at a time, users times heads. bits: whether factors are bfloat16. rounding:
    relative error of a stored product. summing: how many times the error of float32 additions its sums may have.

    Raises:
        ResourceError: this machine cannot run it.
    """

    name: str
    columns: int
    bits: bool
    rounding = 0.0
    summing = 1.0
    # What its time is measured by: the processor's, because other programs may run.
    clock: Callable[[], float] = staticmethod(time.thread_time)

    def __init__(self, items: OrderedItems, block_mb: int) -> None:
        if not self.is_available():
            raise ResourceError(f"this machine cannot run the engine '{self.name}'", where="index.engine", remedy="use engine = 'auto'")
        self.items, self.block_mb = items, block_mb
        self.lowered = LoweredItems(items, bits=self.bits, width=self.width(items.vectors.shape[1]))

    def width(self, dimension: int) -> int:
        """Components of a lowered vector."""
        return dimension

    def over(self, items: OrderedItems) -> Self:
        """The same engine over other items."""
        return type(self)(items, self.block_mb)

    @contextlib.contextmanager
    def one_thread(self) -> Iterator[None]:
        """Products by the calling thread alone, for a search: our threads share out the users, a library's own would wait
        for each other. Searches that overlap share what is set for the process, and leave what was there before.
        """
        yield

    def one_thread_here(self) -> None:  # noqa: B027
        """The same for what a library sets for each thread; called within `one_thread` by every thread that multiplies."""

    @abstractmethod
    def lanes(self, heads: int) -> int:
        """What the users of a group are rounded up to a multiple of."""

    @classmethod
    @abstractmethod
    def is_available(cls) -> bool:
        """Whether this machine can run it, fast."""

    @abstractmethod
    def offer(self, lowered: LoweredUsers, n: int, group: Arrays, catalog: Arrays, users: Arrays) -> None:
        """Offer every item to a group."""

    def cuts(self, lanes: int) -> np.ndarray:
        """Cuts that nothing reaches, one a lane."""
        return np.full(lanes, np.inf, np.float32)


class BlockedEngine(AbstractEngine):
    """Writes blocks of products [items, heads x lanes], each scanned while it is in the cache."""

    def lanes(self, heads: int) -> int:  # noqa: ARG002
        return SEGMENT

    def offer(self, lowered: LoweredUsers, n: int, group: Arrays, catalog: Arrays, users: Arrays) -> None:
        heads, lanes, width = lowered.heads.shape
        factor = self.factor(lowered.heads.reshape(heads * lanes, width))
        in_bits = self.cuts(0).dtype == np.int16
        step = self._step(heads * lanes)
        room = np.empty((min(step, len(self.items)), heads * lanes), np.int16 if in_bits else np.float32)
        for first in range(0, len(self.items), step):
            negative, alive = set_cuts(first, group, catalog, self.rounding, in_bits)
            if not alive:
                break
            products = room[: len(self.items) - first]
            self.product(self.lowered.block(first, first + len(products)), factor, products)
            if in_bits and negative:
                make_sortable(products)
            scan(products, first, heads, n, group, catalog, users, self.rounding, in_bits)

    def _step(self, columns: int) -> int:
        room = (self.block_mb << 20) // (columns * self.cuts(0).itemsize)
        return max(BLOCK, room // BLOCK * BLOCK)

    @abstractmethod
    def factor(self, heads: np.ndarray) -> Any:
        """The users' side of the product, from their lowered interests [columns, width]."""

    @abstractmethod
    def product(self, items: np.ndarray, factor: Any, out: np.ndarray) -> None:
        """Write the products of a block of lowered items to out [items, columns]."""


class NumpyEngine(BlockedEngine):
    """float32 products by numpy's BLAS: runs everywhere."""

    name = "numpy"
    columns = 256
    bits = False

    @classmethod
    def is_available(cls) -> bool:
        return True

    @contextlib.contextmanager
    def one_thread(self) -> Iterator[None]:
        # Not by the workers: OpenBLAS 0.3.31 does not take the number from threads of a pool.
        with _one_blas_thread.held():
            yield

    def factor(self, heads: Float32[np.ndarray, "c d"]) -> Float32[np.ndarray, "d c"]:
        return np.ascontiguousarray(heads.T)

    def product(self, items: Float32[np.ndarray, "m d"], factor: Float32[np.ndarray, "d c"], out: Float32[np.ndarray, "m c"]) -> None:
        np.matmul(items, factor, out=out)


class TorchEngine(BlockedEngine):
    """bfloat16 products by torch, whose oneDNN adds up in float32 and rounds the sum: for processors with bfloat16 units."""

    name = "torch"
    columns = 512
    bits = True
    rounding = 2.0**-8 * (1.0 + 2.0**-20)

    @classmethod
    def is_available(cls) -> bool:
        """Whether the processor multiplies bfloat16; elsewhere torch only imitates it."""
        return any(processor_has(feature) for feature in ("amx-bf16", "avx512bf16", "bf16"))

    @contextlib.contextmanager
    def one_thread(self) -> Iterator[None]:
        import torch

        with _threads_of_torch.held() as before:
            try:
                yield
            finally:
                # The thread that searched may have multiplied itself, and new threads begin with what was set last.
                torch.set_num_threads(before)

    def one_thread_here(self) -> None:
        import torch

        torch.set_num_threads(1)

    def cuts(self, lanes: int) -> np.ndarray:
        return np.full(lanes, np.iinfo(np.int16).max, np.int16)

    def factor(self, heads: np.ndarray) -> Any:
        return as_bfloat16(heads).t().contiguous()

    def product(self, items: np.ndarray, factor: Any, out: np.ndarray) -> None:
        import torch

        torch.mm(as_bfloat16(items), factor, out=as_bfloat16(out))


def as_bfloat16(bits: np.ndarray) -> Any:
    """The torch tensor of bfloat16 that these bits uint16 or int16 are; nothing is copied."""
    import torch

    return torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16)


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


@contextlib.contextmanager
def _found_threads_of_torch() -> Iterator[int]:
    import torch

    yield torch.get_num_threads()


_one_blas_thread = SharedLimit(lambda: _blas().limit(limits=1, user_api="blas"))
_threads_of_torch = SharedLimit(_found_threads_of_torch)
