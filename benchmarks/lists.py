"""Cost a user of making lists: merge, re-scoring, every list builder; beside plain rivals and floors of the same run.

    nice -n 5 python benchmarks/lists.py                # 2,048 users, 4 interests x 100 hits, 100 seen items, 50 of 200
    nice -n 5 python benchmarks/lists.py --users 8192

One thread. CPU seconds of the process and not wall seconds, so that a busy machine does not blur the ratios; medians of
the runs. The rivals are a dictionary for the merge and ComiRec's loop, counting categories as it goes, for the greedy;
they run on a part of the users, and their lists must equal ours there. Builders choose from the best 200 of 20,000
clustered items under four interests, with lambda in standard deviations of a user's pool. The floor of MMR, DPP and SSD is
the time of their inner products, n P D multiply-adds a user, at the rate of a large matrix product in the same precision.
"""

import argparse
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
from numba import njit

from retrieval.index.kernels import insert, table_size
from retrieval.index.pools import Pools, Seen
from retrieval.recall.context import Labels, ListContext, SearchedInterests
from retrieval.recall.greedy import category_greedy
from retrieval.recall.kernels import merge_lists, merge_users
from retrieval.recall.lists import LIST_BUILDERS, build_lists
from retrieval.recall.settings import BuilderSettings, RecallSettings

ITEMS, DIMENSION, INTERESTS, HITS, SEEN = 20_000, 64, 4, 100, 100
POOL, LENGTH, CODES, LAMBDA, SAMPLE = 200, 50, 20, 0.1, 64
LAMBDAS = (0.1, 1.0, 1000.0)
FLOORED = {"mmr": np.float32, "dpp": np.float64, "ssd": np.float64}


def median_microseconds(call: Callable[[], object], users: int, runs: int) -> float:
    call()
    seconds = []
    for _ in range(runs):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds) / users * 1e6


@njit
def merge_all(rows: np.ndarray, scores: np.ndarray, queries: np.ndarray, seen: np.ndarray, blocked: np.ndarray, out: np.ndarray) -> None:
    table = np.empty(table_size(seen.shape[1] + out.shape[1]), np.int32)
    for user in range(queries.shape[0]):
        table[:] = -1
        for item in seen[user]:
            insert(table, item)
        merge_lists(rows, scores, queries[user], table, blocked, out[user])


def dictionary_merge(rows: np.ndarray, scores: np.ndarray, seen: np.ndarray, n: int) -> list[int]:
    best: dict[int, float] = {}
    left_out = set(seen.tolist())
    for row, score in zip(rows.ravel().tolist(), scores.ravel().tolist(), strict=True):
        if row not in left_out and score > best.get(row, -np.inf):
            best[row] = score
    return sorted(best, key=lambda row: -best[row])[:n]


def comirec_loop(rows: list[int], scores: list[float], categories: list[int], n: int, price: float) -> list[int]:
    counts: Counter[int] = Counter()
    left, chosen = list(range(len(rows))), []
    for _ in range(n):
        best = max(left, key=lambda place: (scores[place] - price * counts[categories[rows[place]]], -place))
        counts[categories[rows[best]]] += 1
        left.remove(best)
        chosen.append(rows[best])
    return chosen


def make_hits(random: np.random.Generator, users: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    popular = random.integers(0, ITEMS, (users, 1, 1))
    rows = (popular + random.permuted(np.tile(np.arange(8 * HITS), (users, INTERESTS, 1)), axis=2)[:, :, :HITS] * 7) % ITEMS
    scores = -np.sort(-random.standard_normal((users * INTERESTS, HITS)).astype(np.float32), axis=1)
    seen = (popular[:, 0] + random.integers(0, 8 * HITS, (users, SEEN)) * 7) % ITEMS
    return rows.reshape(-1, HITS), scores, seen.astype(np.int32)


def merge_figures(random: np.random.Generator, users: int, runs: int) -> None:
    rows, scores, seen = make_hits(random, users)
    queries, blocked = np.arange(users * INTERESTS).reshape(users, INTERESTS), np.zeros(ITEMS, dtype=bool)
    out = np.empty((users, HITS), dtype=np.int64)
    ours = median_microseconds(lambda: merge_all(rows, scores, queries, seen, blocked, out), users, runs)
    part = range(min(SAMPLE, users))
    naive = median_microseconds(
        lambda: [dictionary_merge(rows[queries[u]], scores[queries[u]], seen[u], HITS) for u in part], len(part), runs
    )
    assert all(out[u].tolist() == dictionary_merge(rows[queries[u]], scores[queries[u]], seen[u], HITS) for u in part)
    show(f"merge {INTERESTS} x {HITS}, {SEEN} seen", ours, naive)
    show("merge and re-scoring in float64", rescored(random, (rows, scores, queries), seen, runs), 0.0)


def rescored(random: np.random.Generator, hits: tuple[np.ndarray, ...], seen: np.ndarray, runs: int) -> float:
    users = len(seen)
    vectors = random.standard_normal((ITEMS, DIMENSION)).astype(np.float32)
    interests = random.standard_normal((users, INTERESTS, DIMENSION)).astype(np.float32).astype(np.float64)
    batch = (interests, np.ones((users, INTERESTS), dtype=bool), np.arange(users + 1) * SEEN, seen.reshape(-1))
    pools, catalog = Pools.empty(users, HITS), (vectors, np.zeros(ITEMS, dtype=bool))
    out, settled = (pools.rows, pools.scores, pools.interest), np.zeros(users, dtype=bool)
    arguments = (np.arange(users), hits, batch, catalog, HITS, np.zeros(users), out, settled)
    return median_microseconds(lambda: merge_users(0, users, *arguments), users, runs)


def greedy_figures(random: np.random.Generator, users: int, runs: int) -> float:
    pools = Pools.empty(users, POOL)
    pools.rows[:] = (random.integers(0, ITEMS, (users, 1)) + random.permuted(np.tile(np.arange(POOL) * 97, (users, 1)), axis=1)) % ITEMS
    pools.scores[:] = -np.sort(-random.standard_normal((users, POOL)).astype(np.float32), axis=1)
    categories = random.integers(0, CODES, ITEMS).astype(np.int32)
    ours = median_microseconds(lambda: category_greedy(pools, categories, LENGTH, LAMBDA, scale_free=False, threads=1), users, runs)
    part, codes = range(min(SAMPLE, users)), categories.tolist()
    inputs = [(pools.rows[u].tolist(), pools.scores[u].tolist(), codes, LENGTH, LAMBDA) for u in part]
    naive = median_microseconds(lambda: [comirec_loop(*each) for each in inputs], len(part), runs)
    found = category_greedy(pools, categories, LENGTH, LAMBDA, scale_free=False).rows
    assert all(found[u].tolist() == comirec_loop(*inputs[u]) for u in part)
    show(f"greedy {POOL} -> {LENGTH}, {CODES} categories", ours, naive)
    return naive / ours


def clustered(random: np.random.Generator, users: int) -> tuple[Pools, ListContext]:
    """The best 200 items of users who follow four of 200 topics, and all that a builder may ask for."""
    centres = random.standard_normal((200, DIMENSION))
    topic = random.integers(0, 200, ITEMS)
    vectors = ((centres[topic] + 0.7 * random.standard_normal((ITEMS, DIMENSION))) / 8).astype(np.float32)
    followed = centres[random.integers(0, 200, (users, INTERESTS))]
    interests = ((followed + 0.5 * random.standard_normal(followed.shape)) / 8).astype(np.float32)
    pools = Pools.empty(users, POOL)
    for user in range(users):
        scores = vectors @ interests[user].T
        rows = np.argsort(-scores.max(axis=1), kind="stable")[:POOL]
        pools.rows[user], pools.scores[user], pools.interest[user] = rows, scores[rows].max(axis=1), scores[rows].argmax(axis=1)
    second = random.integers(0, CODES - 1, ITEMS)
    codes = np.stack([topic % CODES, (topic + 1 + second) % CODES], axis=1).astype(np.int32)
    past = Seen(np.arange(users + 1) * SEEN, random.integers(0, ITEMS, users * SEEN).astype(np.int32))
    labels = Labels(np.arange(ITEMS + 1) * 2, codes.reshape(-1), CODES)
    searched = SearchedInterests(interests, np.ones((users, INTERESTS), dtype=bool))
    return pools, ListContext(codes[:, 0].copy(), labels, vectors, past, searched)


def floor_microseconds(dtype: type, runs: int) -> float:
    square = np.random.default_rng(1).standard_normal((1024, 1024)).astype(dtype)
    product = median_microseconds(lambda: square @ square, 1, runs)
    return product * LENGTH * POOL * DIMENSION / 1024**3


def builder_figures(random: np.random.Generator, users: int, runs: int) -> None:
    pools, context = clustered(random, users)
    floors = {dtype: floor_microseconds(dtype, runs) for dtype in set(FLOORED.values())}
    print(f"\n{'microseconds a user, 50 of 200':<32} " + " ".join(f"lambda {each:<8g}" for each in LAMBDAS) + " floor")
    for name in LIST_BUILDERS:
        own = BuilderSettings(per_category=5) if name == "quota" else BuilderSettings()
        common = {"n": LENGTH, "pool": POOL, "diversity": name, "scale_free": True, "builder": own, "threads": 1}
        taken = [median_microseconds(lambda s=s: build_lists(pools, context, s), users, runs) for s in settings_over(common)]
        floor = f"{floors[FLOORED[name]]:.1f} ({np.dtype(FLOORED[name])})" if name in FLOORED else ""
        print(f"{name:<32} " + " ".join(f"{each:<15.1f}" for each in taken) + f" {floor}")


def settings_over(common: dict[str, object]) -> list[RecallSettings]:
    return [RecallSettings.model_validate(common | {"lambda": weight}) for weight in LAMBDAS]


def show(what: str, ours: float, rival: float) -> None:
    beside = f"   plain Python {rival:9.1f} us   ratio {rival / ours:7.1f}" if rival else ""
    print(f"{what:<36} {ours:7.2f} us a user{beside}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--users", type=int, default=2048)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    print(f"python benchmarks/lists.py {' '.join(sys.argv[1:])}".strip())
    random = np.random.default_rng(0)
    merge_figures(random, options.users, options.runs)
    ratio = greedy_figures(random, options.users, options.runs)
    builder_figures(random, options.users, options.runs)
    print(f"conclusion: a list of {LENGTH} from {POOL} by category greedy costs 1/{ratio:.0f} of the loop that scans every candidate")


if __name__ == "__main__":
    main()
