"""Exact search on a GPU: it finds the candidates, the float64 score on the CPU decides, so ids and scores are the CPU's."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from retrieval.index.exact.engines import AbstractEngine, Arrays, as_bfloat16
from retrieval.index.exact.kernels import BLOCK, set_cuts, take
from retrieval.index.exact.limits import SharedLimit
from retrieval.index.exact.lowering.items import OrderedItems
from retrieval.index.exact.lowering.users import LoweredUsers
from retrieval.index.exact.processor import has_gpu

# Bytes of a thread's block of products on the GPU, and hits of a block that come back at once.
_PRODUCTS, _HITS = 128 << 20, 1 << 21
# Items stay on the GPU where they take no more of its free memory.
_SHARE = 0.5


class CudaEngine(AbstractEngine):
    """bfloat16 products by torch on the first GPU; what reaches its cut comes back.

    Items stay on the GPU when they fit, else they are sent block by block for every group of users. A thread takes 128
    MiB of products there, and twice that while they are compared. Blocks double from 1,024 items on, so that a search
    that begins without a floor brings back about n hits a user each time.
    """

    name = "cuda"
    columns = 8192
    bits = True
    rounding = 2.0**-8 * (1.0 + 2.0**-20)
    # Tensor cores align the terms of a sum to the largest and cut off what lies below.
    summing = 4.0
    clock: Callable[[], float] = staticmethod(time.perf_counter)
    place = "cuda"

    def __init__(self, items: OrderedItems, block_mb: int) -> None:
        super().__init__(items, block_mb)
        self._values = as_bfloat16(self.lowered.values)
        if self._fits():
            self._values = self._values.to(self.place)

    @classmethod
    def is_available(cls) -> bool:
        return has_gpu()

    def _fits(self) -> bool:
        import torch

        return self.lowered.values.nbytes <= _SHARE * torch.cuda.mem_get_info()[0]

    @contextlib.contextmanager
    def one_thread(self) -> Iterator[None]:
        with _whole_sums.held():
            yield

    def lanes(self, heads: int) -> int:  # noqa: ARG002
        return 8

    def offer(self, lowered: LoweredUsers, n: int, group: Arrays, catalog: Arrays, users: Arrays) -> None:
        heads, lanes, width = lowered.heads.shape
        factor = as_bfloat16(lowered.heads.reshape(heads * lanes, width)).to(self.place).t()
        first, size, largest = 0, BLOCK, max(BLOCK, _PRODUCTS // (heads * lanes * 2))
        while first < len(self.items) and set_cuts(first, group, catalog, self.rounding, False)[1]:
            last = min(first + size, len(self.items))
            products = self._values[first:last].to(self.place) @ factor
            self._take(products.view(-1, heads, lanes).amax(1), first, n, group, catalog, users)
            first, size = last, min(2 * size, largest)

    def _take(self, best: Any, first: int, n: int, group: Arrays, catalog: Arrays, users: Arrays) -> None:
        """Bring back the products [items, lanes] that reach their cut; many hits in halves, each with the cuts of then."""
        import torch

        reached = best >= torch.from_numpy(group[5]).to(self.place)
        if len(best) > 1 and int(reached.count_nonzero()) > _HITS:
            half = len(best) // 2
            self._take(best[:half], first, n, group, catalog, users)
            self._take(best[half:], first + half, n, group, catalog, users)
            return
        hits = reached.nonzero()
        values = best[hits[:, 0], hits[:, 1]].float()
        take(hits.cpu().numpy(), values.cpu().numpy(), first, n, group, catalog, users, self.rounding)


@contextlib.contextmanager
def _sums_in_float32() -> Iterator[None]:
    import torch

    # The error bound knows no other sums.
    before = torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = before


_whole_sums = SharedLimit(_sums_in_float32)
