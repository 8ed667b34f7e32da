"""How fast a log is generated, and in how much memory.

    python benchmarks/generate.py                        # 1 million events, then 4 million: the peak must not grow with them
    nice -n 5 python benchmarks/generate.py 100000000    # 100 million events, about 1 GB of parquet

Each size runs in a process of its own, so that its peak resident memory is its own. The rival of the same run is writing
columns of the same types and sizes that are drawn uniformly, with nothing planted: the cost of random numbers and parquet alone.
"""

import argparse
import json
import multiprocessing
import tempfile
from pathlib import Path

EVENTS_PER_USER = 50


def measure_generator(events: int, threads: int | None, folder: str) -> dict:
    from retrieval.core.resources import measured
    from retrieval.data.generator.generate import generate
    from retrieval.data.generator.settings import GeneratorSettings

    users = max(1, events // EVENTS_PER_USER)
    settings = GeneratorSettings(users=users, items=max(2_000, users // 20), behaviour={"events_per_user": float(EVENTS_PER_USER)})
    with measured() as usage:
        report = generate(settings, Path(folder) / "log", threads=threads)
    size = sum(path.stat().st_size for path in (Path(folder) / "log").rglob("*.parquet"))
    return {"what": "generator", "events": report.events, "users": users, "items": settings.items, "bytes": size} | figures(
        report.events, usage
    )


def measure_uniform(events: int, _threads: int | None, folder: str) -> dict:
    import numpy as np
    import pyarrow as pa

    from retrieval.core.resources import measured
    from retrieval.data.generator.randomness import stream
    from retrieval.data.generator.words import KINDS
    from retrieval.data.generator.writer import PartWriter

    users, block = max(1, events // EVENTS_PER_USER), 2**18
    with measured() as usage, PartWriter(Path(folder), "interactions/part", 4_000_000) as writer:
        for number, first in enumerate(range(0, events, block)):
            random, n = stream(0, "uniform", number), min(block, events - first)
            kinds = pa.DictionaryArray.from_arrays(pa.array(random.integers(0, 3, n).astype(np.int8)), list(KINDS))
            user = np.sort(random.integers(0, users, n))
            time = random.integers(0, 60 * 86_400, n) + 1_704_067_200
            writer.write(pa.table({"user_id": user, "item_id": random.integers(0, 2_000, n), "timestamp": time, "kind": kinds}))
    return {"what": "uniform columns, one thread", "events": events} | figures(events, usage)


def figures(events: int, usage) -> dict:
    rate = events / usage.seconds
    return {"seconds": round(usage.seconds, 2), "events_per_second": round(rate), "peak_memory_mb": round(usage.peak_memory_bytes / 1e6)}


def in_own_process(measure, events: int, threads: int | None) -> dict:
    with tempfile.TemporaryDirectory() as folder, multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (events, threads, folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("events", type=int, nargs="*", default=[1_000_000, 4_000_000])
    parser.add_argument("--threads", type=int, default=None, help="default: every core")
    arguments = parser.parse_args()
    for events in arguments.events:
        ours = in_own_process(measure_generator, events, arguments.threads)
        rival = in_own_process(measure_uniform, events, arguments.threads)
        ratio = rival["events_per_second"] / ours["events_per_second"]
        print(json.dumps(ours), json.dumps(rival), f"uniform columns are {ratio:.1f} times as fast", sep="\n", flush=True)


if __name__ == "__main__":
    main()
