"""Exact search, engine by engine, against FAISS flat: ratios, and the share of the processor's peak.

    OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 python benchmarks/search.py                # 1,000,000 items x 64, n = 100
    OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 python benchmarks/search.py --items 100000

One thread, processor seconds, medians of the runs; all take turns within a run, so a busy minute hurts all of them. FAISS's
threshold for BLAS is lowered, as this package does it, or flat search of few queries would leave BLAS. K=1 answers every
query; K=4 answers a quarter as many users by the largest of four interests in one scan, and its rival is FAISS flat over
the four interests without the merge that it still needs. Every engine's ids and scores are compared with the first
engine's, byte by byte.

Peaks, in the same run: torch's largest float32 and bfloat16 products, and the emitted tile instructions over items in the
cache with nothing tested or stored beyond the first-level cache.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import torch
from numba import njit

from retrieval.core.aligned import aligned_zeros
from retrieval.index.exact.lowering.items import OrderedItems
from retrieval.index.exact.native.engines import AmxEngine
from retrieval.index.exact.native.instructions import COLUMNS, ITEMS, LANES, VECTORS, Amx, tile_config
from retrieval.index.exact.native.intrinsics import begin, end, multiply
from retrieval.index.exact.search import ExactSearch
from retrieval.index.exact.table import ENGINES
from retrieval.index.pools import Pools, Seen

HEADS = (1, 4)
PORTABLE, NATIVE = ("torch", "numpy"), ("amx", "avx512-bf16", "float32")


def seconds_of(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def medians(calls: dict[str, Callable[[], object]], runs: int) -> dict[str, float]:
    for call in calls.values():
        call()
    rounds = [{name: seconds_of(call) for name, call in calls.items()} for _ in range(runs)]
    return {name: statistics.median(each[name] for each in rounds) for name in calls}


def search_with(name: str, items: OrderedItems) -> ExactSearch:
    return ExactSearch(ENGINES[name](items, 1), np.zeros(len(items), dtype=bool), 1)


def pools_of(search: ExactSearch, queries: np.ndarray, heads: int, n: int) -> Pools:
    users = len(queries) // heads
    interests = queries[: users * heads].reshape(users, heads, -1).astype(np.float64)
    return search(interests, np.ones((users, heads), dtype=bool), Seen.nothing(users), n)


def torch_product(kind: torch.dtype, size: int = 2048) -> tuple[Callable[[], object], float]:
    """A square product and how many billion operations it has."""
    left, right, out = (torch.ones(size, size, dtype=kind) for _ in range(3))
    return lambda: torch.mm(left, right, out=out), 2 * size**3 / 1e9


@njit(cache=True)
def _tiles(instructions: Any, items: np.ndarray, rows: int, columns: np.ndarray, out: np.ndarray) -> None:
    begin(instructions, instructions.config)
    for _ in range(256):
        for row in range(0, rows, 16):
            multiply(instructions, items, row * 64, 64, columns, 0, 2, out, 0)
    end(instructions)


def tile_product(rows: int = 4096) -> tuple[Callable[[], object], float]:
    """Products of items in the cache with 64 columns, 64 dimensions."""
    items, columns = aligned_zeros((rows * 64,), np.uint16), aligned_zeros((COLUMNS * 64,), np.uint16)
    out = aligned_zeros((VECTORS * 16 * LANES,), np.float32)
    chosen = Amx(ITEMS[Amx], tile_config())
    return lambda: _tiles(chosen, items, rows, columns, out), 256 * 2 * rows * 64 * COLUMNS / 1e9


def peaks() -> dict[str, tuple[Callable[[], object], float]]:
    found = {"torch float32": torch_product(torch.float32), "torch bfloat16": torch_product(torch.bfloat16)}
    return found | ({"tiles": tile_product()} if AmxEngine.is_available() else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--queries", type=int, default=2048)
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--engines", nargs="+", default=[name for name, engine in ENGINES.items() if engine.is_available()])
    options = parser.parse_args()
    print(f"python benchmarks/search.py {' '.join(sys.argv[1:])}".strip())
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    faiss.cvar.distance_compute_blas_threshold = 128
    random = np.random.default_rng(0)
    vectors, queries = (random.standard_normal((count, options.dimension), dtype=np.float32) for count in (options.items, options.queries))
    flat = faiss.IndexFlatIP(options.dimension)
    flat.add(vectors)
    items = OrderedItems.of(vectors, 1)
    searches = {name: search_with(name, items) for name in options.engines}
    calls: dict[str, Callable[[], object]] = {"flat": lambda: flat.search(queries, options.n)}
    for heads in HEADS:
        for name, search in searches.items():
            calls[f"{name} K={heads}"] = lambda search=search, heads=heads: pools_of(search, queries, heads, options.n)
    calls |= {name: call for name, (call, _) in peaks().items()}
    compare_results(searches, queries, options.n, flat.search(queries, options.n)[1])
    report(medians(calls, options.runs), options, len(vectors))


def compare_results(searches: dict[str, ExactSearch], queries: np.ndarray, n: int, of_flat: np.ndarray) -> None:
    for heads in HEADS:
        found = {name: pools_of(search, queries, heads, n) for name, search in searches.items()}
        results = {pools.rows.tobytes() + pools.scores.tobytes() for pools in found.values()}
        print(f"K={heads}: {len(results)} different result(s) of {len(found)} engines")
        if heads == 1:
            # What FAISS ranks by is a float32 sum, whose last bits order near ties otherwise.
            same = np.mean([len(np.intersect1d(a, b)) / n for a, b in zip(next(iter(found.values())).rows, of_flat, strict=True)])
            print(f"FAISS flat finds {same:.6f} of them")


def report(seconds: dict[str, float], options: argparse.Namespace, items: int) -> None:
    rates = {name: work / seconds[name] for name, (_, work) in peaks().items()}
    print(*(f"peak {name} {rate:.0f} GFLOP/s" for name, rate in rates.items()), sep="\n")
    work = 2 * items * options.dimension * options.queries / 1e9
    ratios = {name: seconds["flat"] / spent for name, spent in seconds.items() if name not in rates}
    for name, ratio in ratios.items():
        rate = work / seconds[name]
        shares = "  ".join(f"{rate / peak:4.0%} of {kind}" for kind, peak in rates.items())
        print(f"{name:<18} {options.queries / seconds[name]:7.0f} interests/s  {ratio:5.2f} x flat  {rate:5.0f} GFLOP/s  {shares}")
    for what, names in (("portable", PORTABLE), ("native", NATIVE)):
        best = {heads: max(ratios.get(f"{name} K={heads}", 0.0) for name in names) for heads in HEADS}
        print(f"conclusion: {what} {best[1]:.2f} x FAISS flat at K=1, {best[4]:.2f} x four flat searches at K=4")


if __name__ == "__main__":
    main()
