"""What the leak checker costs: seconds and memory over the length of the log, and the shuffle test on real logs.

python benchmarks/leaks.py --events 1000000 10000000      # drawn logs of 50 events a user, leave-last-out
python benchmarks/leaks.py --sets ml-1m globo-news         # of $RETRIEVAL_DATA
"""

import argparse
import os
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np
import polars as pl

from retrieval.core.artifacts import Workspace
from retrieval.data.catalog import Catalog
from retrieval.data.dataset import Dataset
from retrieval.data.prepare import prepare
from retrieval.data.sequences import SequenceDataset
from retrieval.data.settings import DataSettings, SplitSettings
from retrieval.data.splits import make_split, training_counts
from retrieval.evaluation.leaks.check import check_leaks
from retrieval.evaluation.leaks.datasets import evidence_of

LENGTH = 50
SETS = {
    "ml-100k": {"order": "order"},
    "ml-1m": {"time": "order", "time_unit": "order"},
    "globo-news": {"time_unit": "seconds"},
    "movietweetings-100k": {},
}


def drawn(events: int) -> tuple[Dataset, SplitSettings, pl.DataFrame]:
    users, items, rng = events // LENGTH, max(1000, events // 100), np.random.default_rng(1)
    times = np.sort(1_600_000_000 + rng.integers(0, 40 * 86_400, (users, LENGTH)), axis=1).ravel()
    log = SequenceDataset(np.arange(users + 1) * LENGTH, rng.integers(0, items, users * LENGTH).astype(np.int32), times)
    settings = SplitSettings(protocol="leave-last-out")
    split = make_split(settings, log)
    counts = training_counts(split, log, items)
    catalog = Catalog(pl.DataFrame({"item_id": np.arange(items), "title": "", "events": counts, "field_price": rng.random(items)}))
    every = np.arange(users)
    targets = log.items.reshape(users, LENGTH)[:, -2:].astype(np.int64)
    truth = pl.concat(
        pl.DataFrame({"user_id": every, "item_id": targets[:, place], "split": part}) for place, part in enumerate(("valid", "test"))
    )
    return Dataset(catalog, pl.DataFrame({"user_id": every, "events": log.lengths}), log, split), settings, truth


def of_size(events: int) -> None:
    dataset, settings, truth = drawn(events)
    began = time.process_time()
    found = check_leaks(evidence_of(dataset, settings, truth, in_seconds=True))
    seconds = time.process_time() - began
    tracemalloc.start()
    check_leaks(evidence_of(dataset, settings, truth, in_seconds=True))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"{events:>12,} events  {seconds:7.2f} s  {1e9 * seconds / events:6.0f} ns an event  {peak / 2**20:7.0f} MiB  {found.verdict()}")


def of_set(name: str) -> None:
    folder = Path(os.environ["RETRIEVAL_DATA"]) / name
    interactions = {"path": str(folder / "interactions.parquet"), **SETS[name]}
    data = DataSettings.model_validate({"name": name, "interactions": interactions, "items": {"path": str(folder / "items.parquet")}})
    with tempfile.TemporaryDirectory() as scratch:
        workspace = Workspace(Path(scratch))
        with workspace.create("dataset", "one", settings={}, inputs={}) as staged:
            prepare(data, SplitSettings(protocol="leave-last-out"), staged)
        found = workspace.open("dataset", "one").summary["split"]["sequential"]
    print(f"{name:<22} {found['hit_rate']:.4f}  {found['shuffled']:.4f}  [{found['low']:.4f}, {found['high']:.4f}]  {found['words']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, nargs="*", default=[])
    parser.add_argument("--sets", nargs="*", default=[], choices=list(SETS))
    chosen = parser.parse_args()
    for events in chosen.events:
        of_size(events)
    for name in chosen.sets:
        of_set(name)


if __name__ == "__main__":
    main()
