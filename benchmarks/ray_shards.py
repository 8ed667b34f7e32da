"""What a shard costs over Ray beside its lists: the way there and back, and opening the index again.

    pip install 'multi-interest-retrieval[ray]'
    OMP_WAIT_POLICY=PASSIVE python benchmarks/ray_shards.py                     # generated users, minutes
    OMP_WAIT_POLICY=PASSIVE python benchmarks/ray_shards.py --users 5000 --shards 4 16

One task at once on one core. "between": seconds from the end of a shard to that of the next, less what the task itself
took (medians). "opening": what a shard takes more when there are more of them, by the tasks' own seconds at the fewest and the
most shards. "start": from nothing to the end of the first task, less the task. The last line takes them together for a shard of a minute.
"""

import argparse
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path

from retrieval.core.logging import configure_logging
from retrieval.stages import ray_shards
from retrieval.stages.audience import Scope
from retrieval.stages.over_ray import RaySettings
from retrieval.stages.recipe import parse_recipe
from retrieval.stages.run import open_run

EVERYONE, MINUTE = Scope(who="all"), 60.0


def recipe_of(users: int, items: int, shards: int) -> dict:
    sources = {"path": "generated/interactions"}
    return {
        "generate": {"users": users, "items": items, "days": 30},
        "data": {"name": "generated", "interactions": sources, "items": {"path": "generated/items.parquet"}},
        "model": {"name": "comirec-sa", "interests": 4, "history": 50},
        "train": {"steps": 5},
        "recall": {"batch_users": 64},
        "evaluate": {"baselines": []},
        "machine": {"threads": 1, "engine": "ray", "ray": RaySettings(shards=shards, in_flight=1).model_dump()},
    }


def measured(values: dict, workspace: Path) -> tuple[list[float], list[float]]:
    """Seconds of each task by itself, and from the end of the one before to its end."""
    own, apart, run = [], [], ray_shards.run_tasks

    def watched(*what, **more):
        last = time.perf_counter()
        for name, done in run(*what, **more):
            now = time.perf_counter()
            own.append(done["seconds"])
            apart.append(now - last)
            last = now
            yield name, done

    ray_shards.run_tasks = watched
    pipeline = open_run(parse_recipe(values, "ray.toml"), workspace)
    found = pipeline.candidates(EVERYONE)
    ray_shards.run_tasks = run
    pipeline.stages.workspace.remove("candidates", found.id)
    return own, apart


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--items", type=int, default=5_000)
    parser.add_argument("--shards", type=int, nargs="+", default=[4, 32])
    options = parser.parse_args()
    configure_logging(as_json=True, level=logging.ERROR)
    print(f"python benchmarks/ray_shards.py {' '.join(sys.argv[1:])}".strip())
    between, starts, totals = [], [], {}
    with tempfile.TemporaryDirectory() as folder:
        for shards in sorted(options.shards):
            own, apart = measured(recipe_of(options.users, options.items, shards), Path(folder))
            # The first task opens what the others find open.
            gaps = [each - task for each, task in zip(apart, own, strict=True)]
            between += gaps[1:]
            starts.append(gaps[0])
            totals[shards] = (len(own) - 1, sum(own[1:]))
            print(
                f"{shards:>4} shards  start {gaps[0]:5.2f} s  first task {own[0]:5.2f} s  "
                f"others {statistics.median(own[1:]):6.3f} s each  between {1e3 * statistics.median(gaps[1:]):5.1f} ms",
                flush=True,
            )
    # The first shard is left out of both, and with it its share of the users.
    whole = {shards: seconds * shards / counted for shards, (counted, seconds) in totals.items()}
    opening = max(0.0, (whole[max(whole)] - whole[min(whole)]) / (max(whole) - min(whole)))
    each = opening + statistics.median(between)
    print(f"opening {1e3 * opening:.0f} ms a shard; with the way there and back {100 * each / MINUTE:.2f} % of a shard of a minute")
    start = statistics.median(starts)
    print(f"start {start:.1f} s once: {100 * start / (10 * MINUTE):.1f} % of ten such shards on a core")


if __name__ == "__main__":
    main()
