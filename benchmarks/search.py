"""Queries a second of exact search: this package's blocked search, FAISS flat and approximate, against plain numpy.

    nice -n 5 python benchmarks/search.py                                  # 100,000 items x 64, 1,000 queries, n = 100
    nice -n 5 python benchmarks/search.py --items 1000000 --queries 200
    nice -n 5 python benchmarks/search.py --factories exact Flat IVF256,Flat HNSW32

One thread and two, wall seconds, medians of the runs; the kinds take turns within a run, so a busy minute hurts all of them. The
rival is the whole matrix product followed by numpy's argpartition and sort. `finds` is the share of the exact result.
`users` is a whole InterestSearch on 4 interests a user with 50 seen items: search, merge, filters, re-scoring.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from retrieval.index.abstract import AbstractIndex
from retrieval.index.exact.index import ExactIndex
from retrieval.index.pools import Seen
from retrieval.index.quality import measure_recall
from retrieval.index.settings import IndexSettings
from retrieval.index.table import build_index
from retrieval.recall.search import InterestSearch

INTERESTS, SEEN, POOL = 4, 50, 200


def brute_force(vectors: np.ndarray, queries: np.ndarray, n: int) -> np.ndarray:
    scores = queries @ vectors.T
    best = np.argpartition(-scores, n, axis=1)[:, :n]
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1)
    return np.take_along_axis(best, order, axis=1)


def seconds_of(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def medians(calls: dict[str, Callable[[], object]], runs: int) -> dict[str, float]:
    for call in calls.values():
        call()
    rounds = [{name: seconds_of(call) for name, call in calls.items()} for _ in range(runs)]
    return {name: statistics.median(each[name] for each in rounds) for name in calls}


def users_a_second(index: AbstractIndex, vectors: np.ndarray, queries: np.ndarray, runs: int) -> float:
    users = len(queries) // INTERESTS
    interests = queries[: users * INTERESTS].reshape(users, INTERESTS, -1)
    items = np.random.default_rng(1).integers(0, len(vectors), users * SEEN).astype(np.int32)
    search, seen = InterestSearch(index, vectors, POOL, threads=index.settings.threads), Seen(np.arange(users + 1) * SEEN, items)
    valid = np.ones((users, INTERESTS), dtype=bool)
    return users / medians({"users": lambda: search(interests, valid, seen)}, runs)["users"]


def clustered(random: np.random.Generator, centres: np.ndarray, count: int) -> np.ndarray:
    return (centres[random.integers(0, len(centres), count)] + random.standard_normal((count, centres.shape[1]))).astype(np.float32)


def compare(vectors: np.ndarray, queries: np.ndarray, options: argparse.Namespace, threads: int) -> dict[str, float]:
    exact = ExactIndex(vectors, IndexSettings(factory="exact", threads=threads))
    indexes = {name: build_index(vectors, IndexSettings(factory=name, device="cpu", threads=threads)) for name in options.factories}
    calls: dict[str, Callable[[], object]] = {name: lambda index=index: index.search(queries, options.n) for name, index in indexes.items()}
    calls["numpy"] = lambda: brute_force(vectors, queries, options.n)
    speeds = {name: len(queries) / seconds for name, seconds in medians(calls, options.runs).items()}
    for name, index in indexes.items():
        found, users = measure_recall(index, exact, queries, options.n), users_a_second(index, vectors, queries, options.runs)
        ratio = speeds[name] / speeds["numpy"]
        print(
            f"{threads} threads  {name:<12} {speeds[name]:8.0f} queries/s  {ratio:5.1f} x numpy  finds {found:.4f}  users {users:7.0f} /s"
        )
    print(f"{threads} threads  {'numpy':<12} {speeds['numpy']:8.0f} queries/s")
    return speeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--factories", nargs="+", default=["exact", "Flat", "IVF256,Flat"])
    options = parser.parse_args()
    print(f"python benchmarks/search.py {' '.join(sys.argv[1:])}".strip())
    random = np.random.default_rng(0)
    # Clusters, as trained vectors have them: an inverted file of noise would say nothing.
    centres = random.standard_normal((200, options.dimension))
    vectors, queries = (clustered(random, centres, count) for count in (options.items, options.queries))
    for threads in options.threads:
        # numpy's own threads heed no setting of an index.
        with threadpool_limits(threads, user_api="blas"):
            speeds = compare(vectors, queries, options, threads)
        if {"exact", "Flat"} <= speeds.keys():
            print(f"conclusion: with {threads} threads FAISS flat answers {speeds['Flat'] / speeds['exact']:.2f} x the queries of exact")


if __name__ == "__main__":
    main()
