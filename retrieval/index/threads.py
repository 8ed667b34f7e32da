"""Chunks of rows over threads, for kernels that release the GIL."""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from retrieval.core.resources import available_threads


def over_chunks(kernel: Callable[..., Any], count: int, threads: int, *arguments: Any) -> None:
    """Call `kernel(start, stop, *arguments)` over ranges that cover 0..count-1; `threads` 0 means all cores.

    Plain threads and not numba's own: its OpenMP layer aborts a process that forks afterwards.
    """
    workers = min(threads or available_threads(), count)
    if workers <= 1:
        kernel(0, count, *arguments)
        return
    bounds = [count * part // workers for part in range(workers + 1)]
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(kernel, start, stop, *arguments) for start, stop in itertools.pairwise(bounds)]
        for future in futures:
            future.result()
