"""Seconds and peak memory of preparing a dataset.

    python benchmarks/prepare.py globo-news            reads $RETRIEVAL_DATA/globo-news
    python benchmarks/prepare.py generated --events 100000000 [--folder DIR]

The generated log is a parquet file of (user int, item int, time int64): 1 user for 20 events, 1 item for 500, both by a
power law, in order of time, so that no user's events lie together. It is written in DIR, prepared in a fresh process,
and deleted.
"""

import argparse
import multiprocessing
import os
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.core.artifacts import Workspace
from retrieval.core.resources import measured
from retrieval.data.prepare import prepare
from retrieval.data.settings import DataSettings, SplitSettings

_CHUNK = 2_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=["globo-news", "generated"])
    parser.add_argument("--events", type=int, default=100_000_000)
    parser.add_argument("--folder", type=Path, default=None, help="where the generated log and the dataset are written")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        data = globo_news() if arguments.data == "globo-news" else generated(Path(folder), arguments.events)
        # A fresh process: neither the generator's memory nor warm imports count.
        process = multiprocessing.get_context("spawn").Process(target=measure, args=(data, Path(folder)))
        process.start()
        process.join()
    raise SystemExit(process.exitcode)


def measure(data: DataSettings, folder: Path) -> None:
    with measured() as usage, Workspace(folder / "workspace").create("dataset", "benchmark", settings={}, inputs={}) as staged:
        prepare(data, SplitSettings(protocol="leave-last-out"), staged)
    summary = staged.summary
    print(f"{data.name}: {summary['events']} events, {summary['users']} users, {summary['items']} items")
    print(f"{usage.seconds:.1f} s, peak resident memory {usage.peak_memory_bytes / 1e9:.2f} GB")


def globo_news() -> DataSettings:
    folder = Path(os.environ["RETRIEVAL_DATA"]) / "globo-news"
    return DataSettings.model_validate(
        {
            "name": "globo-news",
            "interactions": {"path": str(folder / "interactions.parquet"), "order": "order"},
            "items": {"path": str(folder / "items.parquet"), "categories": "category_id"},
        }
    )


def generated(folder: Path, events: int) -> DataSettings:
    path, rng = folder / "log.parquet", np.random.default_rng(7)
    schema = pa.schema([("user_id", pa.int32()), ("item_id", pa.int32()), ("timestamp", pa.int64())])
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, events, _CHUNK):
            n = min(_CHUNK, events - first)
            columns = [power_law(rng, n, events // 20), power_law(rng, n, events // 500), 1_600_000_000 + (first + np.arange(n)) // 10]
            writer.write_table(pa.table(columns, schema=schema))
    return DataSettings.model_validate({"name": f"generated-{events}", "interactions": {"path": str(path)}})


def power_law(rng: np.random.Generator, n: int, size: int) -> np.ndarray:
    """Draws of 0..size-1 whose frequency falls as a power of the rank, spread over the ids."""
    rank = (size * rng.random(n) ** 2).astype(np.int64)
    return (rank * 2_654_435_761 % max(size, 1)).astype(np.int32)


if __name__ == "__main__":
    main()
