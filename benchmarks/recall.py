"""Lists for every user, end to end: where the time goes, and what the usual ways cost in the same run.

    pip install --target RIVALS --no-deps rectools implicit typeguard attrs pandas python-dateutil tqdm six
    PYTHONPATH=RIVALS OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python benchmarks/recall.py     # 100,000 users, 200,000 items
    python benchmarks/recall.py --users 20000 --items 50000 --rivals usual
    python benchmarks/recall.py --users 20000 --items 50000 --rivals --threads 2 --writing   # wall time, files behind or between

The `recall` stage: histories from the prepared parquet, interests (K=4, d=64), exact search without the seen items, greedy
lists of 100 from pools of 200, parquet. One thread, and one behind it that writes; CPU seconds of the process, medians of
the runs. "writing" is what other threads than the first one spend.

usual: the same encoder by batches, FAISS flat for each interest, a dictionary for the merge, ComiRec's greedy loop over
categories, on a part of the users. implicit, rectools: their batch recommendation of 100 items without the seen ones for ONE
vector a user of the same dimension over the same items, in their default batches; a quarter of the scores that ours needs.
"""

import argparse
import cProfile
import logging
import os
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from scipy.sparse import csr_matrix

from retrieval.core.logging import configure_logging
from retrieval.core.streams import WriteBehind
from retrieval.stages import recall
from retrieval.stages.audience import Audience, Scope, everyone
from retrieval.stages.build_index import load_vectors
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recipe import read_recipe
from retrieval.stages.run import open_run
from retrieval.stages.user_vectors import EncodedUsers

RECIPE = Path(__file__).parents[1] / "pipelines/sample.toml"
N, POOL, LAMBDA, SAMPLE, BATCH = 100, 200, 0.1, 2_048, 256
PARTS = {
    "encoder": ("encode.py", "_interests"),
    "search": ("search.py", "__call__"),
    "lists": ("lists.py", "build_lists"),
}


def overrides(arguments: argparse.Namespace) -> list[str]:
    generated = [f"generate.users={arguments.users}", f"generate.items={arguments.items}", f"train.steps={arguments.steps}"]
    lists = [f"recall.n={N}", f"recall.pool={POOL}", f"recall.lambda={LAMBDA}", "evaluate.baselines=[]"]
    return [
        *generated,
        *lists,
        "train.validate_every=100000",
        f"machine.threads={arguments.threads}",
        "machine.device=cpu",
        *arguments.overrides,
    ]


def cpu_seconds(call: Callable[[], object], runs: int) -> float:
    seconds = []
    for _ in range(runs):
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def recall_once(pipeline: Pipeline, run: int) -> dict[str, float]:
    """CPU seconds of the stage and of its parts."""
    profiler = cProfile.Profile(time.thread_time)
    start, own = time.process_time(), time.thread_time()
    profiler.enable()
    served(pipeline, run)
    profiler.disable()
    whole, own = time.process_time() - start, time.thread_time() - own
    return {"whole": whole, "writing": whole - own} | parts_of(profiler)


def served(pipeline: Pipeline, run: int) -> None:
    """Another batch size is another artifact, so that nothing is found done already."""
    recipe = pipeline.recipe.model_copy(update={"recall": pipeline.recipe.recall.model_copy(update={"batch_users": 1024 + run})})
    made = Pipeline(recipe, pipeline.stages).candidates(Scope(who="all"))
    # Whoever runs this again in the same workspace is to time the work and not the finding of it.
    shutil.rmtree(made.path)


class WriteBetween(WriteBehind):
    """Writes before it hands the caller the next batch."""

    def submit(self, task: Callable[[], Any]) -> None:
        task()


def behind_or_between(pipeline: Pipeline, runs: int) -> dict[str, tuple[float, float]]:
    """Median wall and CPU seconds of the stage, in turns."""
    found: dict[str, list[tuple[float, float]]] = {"behind": [], "between": []}
    for run in range(2 * runs):
        name = list(found)[run % 2]
        recall.WriteBehind = WriteBehind if name == "behind" else WriteBetween  # type: ignore[misc]
        wall, cpu = time.perf_counter(), time.process_time()
        served(pipeline, 1000 + run)
        found[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    recall.WriteBehind = WriteBehind  # type: ignore[misc]
    return {name: (statistics.median(w for w, _ in each), statistics.median(c for _, c in each)) for name, each in found.items()}


def parts_of(profiler: cProfile.Profile) -> dict[str, float]:
    profiler.create_stats()
    found = dict.fromkeys(PARTS, 0.0)
    for (file, _, function), (*_, cumulative, _) in profiler.stats.items():  # type: ignore[attr-defined]
        for part, (ending, name) in PARTS.items():
            if name == function and file.endswith(os.sep + ending) and "retrieval" in file:
                found[part] = max(found[part], cumulative)
    return found


def first_users(pipeline: Pipeline, count: int) -> list[EncodedUsers]:
    whole = everyone(pipeline.dataset)
    part = slice(0, count)
    audience = Audience(whole.users[part], whole.visible[part], whole.parts[part])
    return list(pipeline.users.batches(audience, BATCH))


def usual(pipeline: Pipeline, vectors: np.ndarray) -> Callable[[], object]:
    """The loop of ComiRec's evaluation, writing included: what one finds in public code."""
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    categories = pipeline.dataset.catalog.primary_category.tolist()

    def lists() -> None:
        with tempfile.TemporaryDirectory() as folder:
            rows = [found for batch in first_users(pipeline, SAMPLE) for found in usual_batch(batch, index, categories)]
            pl.DataFrame(rows, schema=["user", "rank", "item", "score"], orient="row").write_parquet(Path(folder) / "lists.parquet")

    return lists


def usual_batch(batch: EncodedUsers, index: object, categories: list[int]) -> list[tuple[int, int, int, float]]:
    users, interests, dimension = batch.vectors.shape
    found = index.search(batch.vectors.reshape(-1, dimension), POOL)  # type: ignore[attr-defined]
    scores, rows = (each.reshape(users, interests, POOL) for each in found)
    lists = []
    for user in range(users):
        seen = set(batch.items[batch.offsets[user] : batch.offsets[user + 1]].tolist())
        best = merged(rows[user][batch.valid[user]], scores[user][batch.valid[user]], seen)
        chosen = greedy(best, categories)
        lists += [(int(batch.audience.users[user]), rank, item, best[item]) for rank, item in enumerate(chosen)]
    return lists


def merged(rows: np.ndarray, scores: np.ndarray, seen: set[int]) -> dict[int, float]:
    best: dict[int, float] = {}
    for row, score in zip(rows.ravel().tolist(), scores.ravel().tolist(), strict=True):
        if row not in seen and score > best.get(row, -np.inf):
            best[row] = score
    return dict(sorted(best.items(), key=lambda pair: -pair[1])[:POOL])


def greedy(best: dict[int, float], categories: list[int]) -> list[int]:
    counts: Counter[int] = Counter()
    left, chosen = list(best), []
    for _ in range(min(N, len(left))):
        item = max(left, key=lambda row: best[row] - LAMBDA * counts[categories[row]])
        counts[categories[item]] += 1
        left.remove(item)
        chosen.append(item)
    return chosen


def histories(batches: list[EncodedUsers], items: int) -> csr_matrix:
    offsets = np.concatenate([[0], *(np.diff(batch.offsets) for batch in batches)]).cumsum()
    seen = np.concatenate([batch.items for batch in batches])
    return csr_matrix((np.ones(len(seen), np.float32), seen, offsets), shape=(len(offsets) - 1, items))


def one_vector(batches: list[EncodedUsers]) -> np.ndarray:
    return np.concatenate([batch.vectors[:, 0] for batch in batches])


def implicit_way(pipeline: Pipeline, vectors: np.ndarray) -> Callable[[], object]:
    from implicit.cpu.matrix_factorization_base import MatrixFactorizationBase

    class Factors(MatrixFactorizationBase):  # type: ignore[misc]
        """Nothing but the inner products that every factor model of the library recommends by."""

        def fit(self, *_: object) -> None: ...

        def save(self, *_: object) -> None: ...

    batches = first_users(pipeline, SAMPLE)
    model, seen = Factors(num_threads=1), histories(batches, len(vectors))
    model.user_factors, model.item_factors = one_vector(batches), vectors
    return lambda: model.recommend(np.arange(SAMPLE), seen, N=N, filter_already_liked_items=True)


def rectools_way(pipeline: Pipeline, vectors: np.ndarray) -> Callable[[], object]:
    from rectools.models.rank import Distance, TorchRanker

    batches = first_users(pipeline, SAMPLE)
    ranker = TorchRanker(Distance.DOT, "cpu", one_vector(batches), vectors)
    return lambda: ranker.rank(np.arange(SAMPLE), k=N, filter_pairs_csr=histories(batches, len(vectors)))


RIVALS = {"usual": usual, "implicit": implicit_way, "rectools": rectools_way}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--steps", type=int, default=100, help="of training, so that the vectors are no noise")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rivals", nargs="*", choices=list(RIVALS), default=list(RIVALS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--writing", action="store_true", help="compare writing behind the search with writing between batches")
    parser.add_argument("--workspace", type=Path, default=Path("workspace"))
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    configure_logging(as_json=False, level=logging.WARNING)
    pipeline = open_run(read_recipe(RECIPE, overrides(arguments)), arguments.workspace)
    vectors = np.ascontiguousarray(load_vectors(pipeline.vectors))
    users = pipeline.dataset.sequences.n_users
    _ = pipeline.index
    recall_once(pipeline, -1)
    if arguments.writing:
        times = behind_or_between(pipeline, arguments.runs)
        (wall, cpu), (other_wall, other_cpu) = times["behind"], times["between"]
        print(f"behind {wall:.2f} s, between {other_wall / wall:.2f} x that; CPU {cpu:.2f} s and {other_cpu / cpu:.2f} x", flush=True)
    runs = [recall_once(pipeline, run) for run in range(arguments.runs)]
    whole = statistics.median(run["whole"] for run in runs)
    shares = {part: statistics.median(run[part] / run["whole"] for run in runs) for part in (*PARTS, "writing")}
    told = "  ".join(f"{part} {share:.1%}" for part, share in shares.items())
    print(f"{users} users, {len(vectors)} items: {whole:.2f} s, {whole / users * 1e6:.1f} us a user; {told}", flush=True)
    for name in arguments.rivals:
        seconds = cpu_seconds(RIVALS[name](pipeline, vectors), arguments.runs) / SAMPLE
        print(f"{name}: {seconds * 1e6:.0f} us a user, {seconds / (whole / users):.1f} x ours", flush=True)


if __name__ == "__main__":
    main()
